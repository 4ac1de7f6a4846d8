//! Items that the model does not know: found by their text, shown at places that are kept for them.

use prost::Message as _;
use rapport_placements::TenantPlacements;
use rapport_proto::catalog::Item;

use super::*;
use crate::{cold_start::keep::keep, recommender::Reason};

fn at(placement: &str, limit: usize) -> Ask {
    let declared = TenantPlacements::from_yaml(
        "acme.yaml",
        "placements:\n  plain: {}\n  new: {new_items: {every: 3}}\n  drawn: {new_items: {every: 2}, explore: {slots: 1}}\n",
    );
    Ask { placement: declared.unwrap().resolve(placement, "ann", |_, _| false), ..ann(limit) }
}

impl House {
    fn item(&self, id: &str, title: &str) {
        let item = Item { item_id: id.into(), title: title.into(), available: true, ..Default::default() };
        self.recommender.catalog.apply(format!("acme/{id}").as_bytes(), Some(&item.encode_to_vec())).unwrap();
    }

    /// Until the index of new items has as many.
    async fn new_items(&self, number: usize) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.recommender.new_items.get(&self.tenant).len() != number {
            assert!(Instant::now() < deadline, "{} new items", self.recommender.new_items.get(&self.tenant).len());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A house with a catalog of what the model knows, two new items, and the task that looks for such.
async fn house(list_length: usize) -> House {
    let house = House::new(list_length);
    for (item, title) in ITEMS.iter().zip(["wind", "space travel", "music", "cooking", "garden", "sea"]) {
        house.item(item, title);
    }
    house.item("hit", "the hit of the year");
    let recommender = &house.recommender;
    keep(recommender.new_items.clone(), recommender.models.clone(), recommender.catalog.clone(), 100, &house.lifecycle)
        .unwrap();
    house.item("rocket", "a rocket into space");
    house.item("violin", "music for the violin");
    house.new_items(3).await;
    house
}

#[tokio::test]
async fn a_new_item_with_a_text_like_what_the_customer_had_gets_the_place_that_is_kept_and_no_other() {
    let house = house(4).await;
    house.history("ann", &["b"]);
    let kept = house.ask(at("new", 3)).await;
    assert_eq!((kept.served, items(&kept)), (Served::Miss, vec!["c", "d", "rocket"]));
    assert_eq!(kept.items[2].pick.sources.names(), ["cold_start"]);
    assert_eq!(kept.items[2].propensity, 1.0);
    // The same from the cache, where it stands behind the list.
    house.written(1).await;
    let kept = house.ask(at("new", 3)).await;
    assert_eq!((kept.served, items(&kept)), (Served::Hit, vec!["c", "d", "rocket"]));
    for without in [ann(3), at("plain", 3), at("new", 2)] {
        let answer = house.ask(without).await;
        assert_eq!(items(&answer)[..2], ["c", "d"]);
        assert!(!items(&answer).contains(&"rocket"));
    }
    let drawn = house.ask(at("drawn", 3)).await;
    assert_eq!(items(&drawn)[..2], ["c", "rocket"]);
    assert!(drawn.items[2].propensity < 1.0 && drawn.items[2].pick.item != "violin");
    // Once it has been seen, or is gone, it is not there; nothing else has a word in common.
    house.history("ann", &["b", "rocket"]);
    assert_eq!(items(&house.ask(at("new", 3)).await), ["c", "d", "e"]);
    house.history("ann", &["b"]);
    house.recommender.catalog.apply(b"acme/rocket", None).unwrap();
    assert_eq!(items(&house.ask(at("new", 3)).await), ["c", "d", "e"]);
    assert_eq!(house.all_writes().await, 2, "no placement makes a list of its own");
}

#[tokio::test]
async fn a_list_of_before_an_item_came_is_made_anew_for_who_wants_it_fresh_and_keeps_places_for_such() {
    let house = house(4).await;
    house.history("ann", &["c"]);
    assert_eq!(items(&house.ask(at("new", 3)).await), ["d", "e", "violin"]);
    house.written(1).await;
    let news = house.recommender.new_items.get(&house.tenant).news;
    house.recommender.catalog.apply(b"acme/violin", None).unwrap();
    house.item("piano", "music for the piano");
    // One goes, one comes: their number says nothing.
    let deadline = Instant::now() + Duration::from_secs(10);
    while house.recommender.new_items.get(&house.tenant).news == news {
        assert!(Instant::now() < deadline, "no news");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(items(&house.ask(at("new", 3)).await), ["d", "e", "f"], "a moment old: served as it is");
    let plain = house.ask(Ask { fresh: true, ..at("plain", 3) }).await;
    assert_eq!(plain.served, Served::Hit, "nobody else waits");
    let fresh = house.ask(Ask { fresh: true, ..at("new", 3) }).await;
    assert_eq!((fresh.served, items(&fresh)), (Served::Miss, vec!["d", "e", "piano"]));
    house.written(2).await;
    assert_eq!(items(&house.ask(at("new", 3)).await), ["d", "e", "piano"]);
}

#[tokio::test]
async fn an_item_is_new_until_a_model_knows_it() {
    let house = house(4).await;
    house.history("ann", &["b"]);
    let knowing = ["a", "b", "c", "d", "e", "f", "rocket"];
    let mut model = LiveModel::for_tests(&knowing, |_| vec![f32::NEG_INFINITY, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]);
    model.stamp.epoch = 2;
    let asked = Ask { fresh: true, ..at("new", 3) };
    assert_eq!(items(&house.ask(asked.clone()).await), ["c", "d", "rocket"]);
    house.recommender.models.set(&house.tenant, Standing { model: Some(Arc::new(model)), ..Standing::default() });
    assert_eq!(items(&house.ask(asked).await), ["a", "c", "d"], "at once, whatever the index holds");
    house.new_items(2).await;
    house.item("moon", "to the moon");
    house.new_items(3).await;
}

#[tokio::test]
async fn an_explanation_says_whose_text_a_new_item_is_close_to() {
    let house = house(4).await;
    house.history("ann", &["a", "b"]);
    let named = vec!["rocket".to_owned(), "violin".to_owned()];
    let deadline = Instant::now() + Duration::from_secs(5);
    let explained = house.recommender.explain(&house.tenant, at("new", 3), named, deadline).await;
    let [rocket, violin] = explained.items.try_into().unwrap();
    assert_eq!(rocket.place.unwrap().0, 3);
    let [Reason::ColdStart { item, cosine }] = &rocket.reasons[..] else { panic!("{:?}", rocket.reasons) };
    assert!(item == "b" && *cosine > 0.1 && *cosine < 1.0, "{cosine}");
    assert_eq!((violin.place, violin.left_out_by), (None, Some("rank")));
    let stage = |name: &str| explained.stages.iter().find(|stage| stage.name == name).map(|stage| stage.items);
    assert_eq!((stage("source:cold_start"), stage("arrange:new_items")), (Some(1), Some(1)));
}

#[tokio::test]
async fn nobody_of_whom_nothing_is_known_gets_new_items_by_text() {
    let house = house(4).await;
    let stranger = house.ask(at("new", 3)).await;
    assert!(stranger.items.iter().all(|placed| !placed.pick.sources.holds(Tag::ColdStart)));
}

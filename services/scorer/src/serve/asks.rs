//! Requests as they stand on the wire, checked: what leaves here cannot be wrong.

use std::{collections::HashSet, sync::Arc};

use rapport_events::{EventTime, FieldError, Tenant, check_id, limits, pseudonym::Pseudonymiser};
use rapport_placements::{Resolved, TenantPlacements};
use rapport_proto::recommend::{
    ExplainRequest, RankRequest, RecommendPageRequest, RecommendRequest, SessionRecommendRequest, SimilarItemsRequest,
};

use crate::{
    recommender::{Ask, Similar, Visit},
    stopped::StoppedArms,
};

/// Items of one answer when the caller does not say.
pub const DEFAULT_LIMIT: usize = 10;
/// Items of one answer at most.
pub const MAX_LIMIT: usize = 500;
/// Items that a call may exclude.
pub const MAX_EXCLUDED: usize = 1_000;
/// Items that a call may have ranked.
pub const MAX_CANDIDATES: usize = 1_000;
/// Lists of one page.
pub const MAX_SLOTS: usize = 20;
/// Items of a visit that only the caller knows.
pub const MAX_VISIT: usize = 500;
/// Items that a call may have explained.
pub const MAX_EXPLAINED: usize = 20;

/// What stands around a request: the house's own rules for ids and placements.
pub struct Around<'a> {
    pub tenant: &'a Tenant,
    pub hash: Option<&'a Pseudonymiser>,
    pub placements: Option<&'a TenantPlacements>,
    pub stopped: &'a StoppedArms,
}

impl Around<'_> {
    /// The rules for a placement that a request names; none where it names none.
    fn placement(&self, field: &str, name: &str, customer: &str) -> Result<Option<Resolved>, FieldError> {
        if name.is_empty() {
            return Ok(None);
        }
        let found = self
            .placements
            .and_then(|declared| declared.resolve(name, customer, |experiment, arm| self.stopped.has(experiment, arm)));
        found.map(Some).ok_or_else(|| {
            let declared = self.placements.into_iter().flat_map(TenantPlacements::placements);
            let names: Vec<&str> = declared.map(|placement| placement.name.as_str()).collect();
            let there =
                if names.is_empty() { "there are none".to_owned() } else { format!("there are: {}", names.join(", ")) };
            FieldError::schema(field, format!("{:?} is not declared for this tenant; {there}", cut(name)))
        })
    }
}

/// A name as a refusal repeats it.
fn cut(name: &str) -> String {
    name.chars().take(64).collect()
}

/// Checks a `RecommendRequest`.
///
/// # Errors
/// The first field that is wrong, with its limit.
pub fn recommend(request: RecommendRequest, around: &Around<'_>) -> Result<Ask, FieldError> {
    let customer = customer(request.customer_id, around.tenant, around.hash)?;
    let placement = around.placement("placement", &request.placement, &customer)?;
    let limit = limit(request.limit)?;
    let excluded = ids("exclude_item_ids", &request.exclude_item_ids, MAX_EXCLUDED)
        .map(|()| request.exclude_item_ids.into_iter().collect::<HashSet<String>>())?;
    let category = category(request.category)?;
    check_id("outcome", &request.outcome, limits::TYPE_BYTES)?;
    let segment = segment(request.segment)?;
    Ok(Ask {
        customer,
        limit,
        include_seen: request.include_seen,
        excluded,
        category,
        fresh: request.fresh,
        placement,
        outcome: Some(request.outcome).filter(|outcome| !outcome.is_empty()),
        segment,
    })
}

/// Checks a `RecommendPageRequest`: one question for each slot, in their order.
///
/// # Errors
/// The first field that is wrong, with its limit.
pub fn page(request: RecommendPageRequest, around: &Around<'_>) -> Result<Vec<Ask>, FieldError> {
    let slots = request.slots.len();
    if !(1..=MAX_SLOTS).contains(&slots) {
        return Err(FieldError::size("slots", format!("must be 1 to {MAX_SLOTS}, are {slots}")));
    }
    let slots = request.slots.into_iter().enumerate().map(|(n, slot)| {
        let one = RecommendRequest {
            customer_id: request.customer_id.clone(),
            limit: slot.limit,
            exclude_item_ids: request.exclude_item_ids.clone(),
            fresh: request.fresh,
            placement: slot.placement,
            ..RecommendRequest::default()
        };
        recommend(one, around).map_err(|error| match error.field.as_str() {
            "limit" | "placement" => FieldError { field: format!("slots[{n}].{}", error.field), ..error },
            _ => error,
        })
    });
    slots.collect()
}

/// Checks a `SessionRecommendRequest`.
///
/// # Errors
/// The first field that is wrong, with its limit.
pub fn session(request: SessionRecommendRequest, around: &Around<'_>) -> Result<(Visit, Ask), FieldError> {
    ids("item_ids", &request.item_ids, MAX_VISIT)?;
    ids("exclude_item_ids", &request.exclude_item_ids, MAX_EXCLUDED)?;
    if !request.times.is_empty() && request.times.len() != request.item_ids.len() {
        let (has, items) = (request.times.len(), request.item_ids.len());
        return Err(FieldError::schema("times", format!("must be none or one for each of {items} items, are {has}")));
    }
    let time = |(n, stamp): (usize, &_)| {
        EventTime::from_proto(stamp)
            .ok_or_else(|| FieldError::schema(format!("times[{n}]"), "must lie in the years 1 to 9999".to_owned()))
    };
    let times = request.times.iter().enumerate().map(time).collect::<Result<Vec<_>, _>>()?;
    let ask = Ask {
        limit: limit(request.limit)?,
        category: category(request.category)?,
        segment: segment(request.segment)?,
        include_seen: request.include_seen,
        excluded: request.exclude_item_ids.into_iter().collect(),
        // Nobody is known here whom an experiment could count.
        placement: around.placement("placement", &request.placement, "")?.map(Resolved::without_experiment),
        ..Ask::default()
    };
    Ok((Visit { items: request.item_ids, times }, ask))
}

/// Checks an `ExplainRequest`: the list, and the items that are named.
///
/// # Errors
/// The first field that is wrong, with its limit.
pub fn explain(request: ExplainRequest, around: &Around<'_>) -> Result<(Ask, Vec<String>), FieldError> {
    ids("item_ids", &request.item_ids, MAX_EXPLAINED)?;
    let list = RecommendRequest {
        customer_id: request.customer_id,
        limit: request.limit,
        placement: request.placement,
        ..RecommendRequest::default()
    };
    let mut named = HashSet::new();
    let items = request.item_ids.into_iter().filter(|item| named.insert(item.clone())).collect();
    Ok((recommend(list, around)?, items))
}

/// Checks a `SimilarItemsRequest`: the item, how many, and of which category.
///
/// # Errors
/// The first field that is wrong, with its limit.
pub fn similar(request: SimilarItemsRequest) -> Result<Similar, FieldError> {
    if request.item_id.is_empty() {
        return Err(FieldError::schema("item_id", "is empty; name the item that others should go with"));
    }
    check_id("item_id", &request.item_id, limits::ID_BYTES)?;
    Ok(Similar { limit: limit(request.limit)?, category: category(request.category)?, item: request.item_id })
}

/// Checks a `RankRequest`: the customer and the items, each once, in the caller's order.
///
/// # Errors
/// The first field that is wrong, with its limit.
pub fn rank(
    request: RankRequest,
    tenant: &Tenant,
    hash: Option<&Pseudonymiser>,
) -> Result<(String, Vec<Arc<str>>), FieldError> {
    let customer = customer(request.customer_id, tenant, hash)?;
    ids("item_ids", &request.item_ids, MAX_CANDIDATES)?;
    let mut known = HashSet::with_capacity(request.item_ids.len());
    let items = request.item_ids.into_iter().map(Arc::<str>::from);
    Ok((customer, items.filter(|item| known.insert(item.clone())).collect()))
}

/// The customer's id as it is stored: the cleaner trims ids, and hashes those that name a person.
///
/// # Errors
/// It is empty or too long.
pub fn customer(id: String, tenant: &Tenant, hash: Option<&Pseudonymiser>) -> Result<String, FieldError> {
    let id = if id.trim().len() == id.len() { id } else { id.trim().to_owned() };
    if id.is_empty() {
        return Err(FieldError::identity("customer_id", "is empty; any id will do, a new one gets what is trending"));
    }
    check_id("customer_id", &id, limits::ID_BYTES)?;
    Ok(match hash {
        Some(hash) => hash.customer_id(tenant, &id),
        None => id,
    })
}

/// A category, where one is asked for.
fn category(category: String) -> Result<Option<String>, FieldError> {
    check_id("category", &category, limits::ID_BYTES)?;
    Ok(Some(category).filter(|category| !category.is_empty()))
}

/// A segment, where one is named.
fn segment(segment: String) -> Result<Option<String>, FieldError> {
    check_id("segment", &segment, limits::SEGMENT_BYTES)?;
    Ok(Some(segment).filter(|segment| !segment.is_empty()))
}

fn limit(limit: u32) -> Result<usize, FieldError> {
    match usize::try_from(limit).unwrap_or(usize::MAX) {
        0 => Ok(DEFAULT_LIMIT),
        limit if limit <= MAX_LIMIT => Ok(limit),
        limit => {
            Err(FieldError::size("limit", format!("may be 1 to {MAX_LIMIT}, or 0 for {DEFAULT_LIMIT}; is {limit}")))
        }
    }
}

fn ids(field: &str, ids: &[String], most: usize) -> Result<(), FieldError> {
    if ids.len() > most {
        return Err(FieldError::size(field, format!("may hold {most} ids, holds {}", ids.len())));
    }
    for (place, id) in ids.iter().enumerate() {
        check_id(field, id, limits::ID_BYTES)
            .map_err(|error| FieldError { field: format!("{field}[{place}]"), ..error })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rapport_proto::recommend::recommend_page_request::Slot;

    use super::*;

    fn acme() -> Tenant {
        Tenant::parse("acme").unwrap()
    }

    fn around<R>(hash: Option<&Pseudonymiser>, work: impl FnOnce(&Around<'_>) -> R) -> R {
        let declared = TenantPlacements::from_yaml("t.yaml", "placements: {home: {candidates: 30}}").unwrap();
        work(&Around { tenant: &acme(), hash, placements: Some(&declared), stopped: &StoppedArms::default() })
    }

    fn ask(request: RecommendRequest) -> Result<Ask, FieldError> {
        around(None, |around| recommend(request, around))
    }

    fn plain() -> RecommendRequest {
        RecommendRequest { customer_id: "ann".into(), ..RecommendRequest::default() }
    }

    #[test]
    fn a_refusal_names_the_field_and_the_limit() {
        let error = |request| ask(request).unwrap_err().to_string();
        assert!(error(RecommendRequest::default()).starts_with("customer_id: is empty"));
        let blank = RecommendRequest { customer_id: " ".into(), ..plain() };
        assert!(error(blank).starts_with("customer_id: is empty"));
        let long = RecommendRequest { customer_id: "x".repeat(129), ..plain() };
        assert_eq!(error(long), "customer_id: may have 128 bytes, has 129");
        let many = RecommendRequest { limit: 501, ..plain() };
        assert_eq!(error(many), "limit: may be 1 to 500, or 0 for 10; is 501");
        let much = RecommendRequest { exclude_item_ids: vec!["a".into(); 1001], ..plain() };
        assert_eq!(error(much), "exclude_item_ids: may hold 1000 ids, holds 1001");
        let odd = RecommendRequest { exclude_item_ids: vec!["a".into(), "b\n".into()], ..plain() };
        assert!(error(odd).starts_with("exclude_item_ids[1]: "));
        let category = RecommendRequest { category: "c".repeat(200), ..plain() };
        assert_eq!(error(category), "category: may have 128 bytes, has 200");
        let outcome = RecommendRequest { outcome: "o".repeat(65), ..plain() };
        assert_eq!(error(outcome), "outcome: may have 64 bytes, has 65");
        let segment = RecommendRequest { segment: "s".repeat(65), ..plain() };
        assert_eq!(error(segment), "segment: may have 64 bytes, has 65");
    }

    #[test]
    fn a_placement_that_nobody_declared_is_refused_with_those_that_are() {
        let at = |placement: &str| ask(RecommendRequest { placement: placement.into(), ..plain() });
        assert_eq!(at("home").unwrap().placement.unwrap().placement.candidates, 30);
        assert_eq!(at("").unwrap().placement, None);
        let error = at("hom").unwrap_err().to_string();
        assert_eq!(error, "placement: \"hom\" is not declared for this tenant; there are: home");
    }

    #[test]
    fn a_page_names_the_slot_that_is_wrong() {
        let slot = |placement: &str, limit| Slot { placement: placement.into(), limit };
        let of = |slots: Vec<Slot>| {
            let request = RecommendPageRequest { customer_id: "ann".into(), slots, ..RecommendPageRequest::default() };
            around(None, |around| page(request, around))
        };
        assert_eq!(
            of(vec![slot("home", 3), slot("", 0)]).unwrap().iter().map(|ask| ask.limit).collect::<Vec<_>>(),
            [3, 10]
        );
        assert!(
            of(vec![slot("home", 3), slot("cart", 3)]).unwrap_err().to_string().starts_with("slots[1].placement: ")
        );
        assert!(of(vec![slot("home", 900)]).unwrap_err().to_string().starts_with("slots[0].limit: "));
        assert_eq!(of(vec![]).unwrap_err().to_string(), "slots: must be 1 to 20, are 0");
    }

    #[test]
    fn a_visit_has_no_times_or_one_for_each_item() {
        let of = |items: &[&str], times: usize| {
            let request = SessionRecommendRequest {
                item_ids: items.iter().map(|item| (*item).to_owned()).collect(),
                times: vec![prost_types::Timestamp { seconds: 5, nanos: 0 }; times],
                ..SessionRecommendRequest::default()
            };
            around(None, |around| session(request, around))
        };
        assert_eq!(of(&["a", "b"], 2).unwrap().0.times.len(), 2);
        assert!(of(&["a", "b"], 0).unwrap().0.times.is_empty());
        assert!(of(&["a", "b"], 1).unwrap_err().to_string().starts_with("times: must be none or one for each of 2"));
        assert_eq!(of(&["a"; 501], 0).unwrap_err().field, "item_ids");
    }

    #[test]
    fn no_limit_means_ten() {
        assert_eq!(ask(plain()).unwrap().limit, 10);
        assert_eq!(ask(RecommendRequest { limit: 500, ..plain() }).unwrap().limit, 500);
    }

    #[test]
    fn an_address_is_looked_up_under_its_pseudonym() {
        let hash = Pseudonymiser::new(&[7; 32]).unwrap();
        let request = RecommendRequest { customer_id: "Ann@Example.com".into(), ..RecommendRequest::default() };
        let ask = around(Some(&hash), |around| recommend(request, around)).unwrap();
        assert_eq!(ask.customer, hash.customer_id(&acme(), "ann@example.com"));
    }

    #[test]
    fn candidates_are_ranked_once_each_in_the_callers_order() {
        let request = RankRequest {
            customer_id: "ann".into(),
            item_ids: ["b", "a", "b"].map(String::from).to_vec(),
            with_titles: false,
        };
        let (_, items) = rank(request, &acme(), None).unwrap();
        assert_eq!(items, [Arc::from("b"), Arc::from("a")]);
    }

    proptest! {
        #[test]
        fn no_request_panics_and_what_passes_is_within_its_limits(
            customer_id: String, limit: u32, category: String,
            exclude_item_ids in proptest::collection::vec(".{0,140}", 0..5),
        ) {
            let request = RecommendRequest { customer_id, limit, category, exclude_item_ids, ..plain() };
            if let Ok(ask) = ask(request) {
                prop_assert!((1..=MAX_LIMIT).contains(&ask.limit));
                prop_assert!(!ask.customer.is_empty() && ask.customer.len() <= limits::ID_BYTES);
            }
        }
    }
}

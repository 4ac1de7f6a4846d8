use rapport_collector::publish::{Fate, Origin};
use rapport_collector::{doors::House, publish::Tally};
use rapport_events::{EventTime, Tenant};
use rapport_proto::events::Event;

use super::house;

const MIB: usize = 1 << 20;

fn full(flags: &[&str]) -> House {
    let limits = ["--max-body-bytes", "1048576", "--max-request-bytes", "1048576", "--ack-timeout", "30s"];
    house("127.0.0.1:1", &[limits.as_slice(), flags].concat()).0
}

#[test]
fn room_is_bounded_given_back_and_never_waited_for_in_vain() {
    let house = full(&["--max-in-flight-bytes", "1048576"]);
    let mut room = house.publish.try_room(MIB / 2).unwrap();
    assert!(house.publish.try_room(MIB).is_none());
    room.shrink_to(100);
    assert_eq!(house.publish.bytes_in_flight(), 100);
    room.shrink_to(200);
    assert_eq!(house.publish.bytes_in_flight(), 100, "room does not grow by itself");
    drop(room);
    assert!(house.publish.try_room(10 * MIB).is_some(), "more than there is counts as all of it");
}

#[tokio::test]
async fn who_leaves_early_does_not_make_the_queue_grow_without_bound() {
    let house = full(&["--max-in-flight-bytes", "1048576"]);
    let (tenant, trace) = (Tenant::parse("acme").unwrap(), opentelemetry::Context::new());
    let origin = Origin { tenant: &tenant, received_at: EventTime::now(), trace: &trace };
    let event = Event { event_id: "m".into(), r#type: "view".into(), customer_id: "ann".into(), ..Event::default() };
    let mut tally = Tally::default();
    for _ in 0..10 {
        let mut submission = house.publish.submit(&origin, 1000);
        (0..1000).for_each(|_| submission.event(&event));
        let pending = submission.close(house.publish.try_room(MIB / 2).unwrap());
        // The caller goes away at once.
        let fates = pending.by(tokio::time::Instant::now()).await;
        assert!(!fates.contains(&Fate::Accepted), "nothing is promised without a broker");
        let of_this = Tally::of(&fates);
        tally.no_room += of_this.no_room;
        tally.unacknowledged += of_this.unacknowledged;
    }
    assert_eq!(tally.unacknowledged, MIB / 512, "the queue takes what its bound says");
    assert_eq!(tally.no_room, 10_000 - MIB / 512, "and refuses the rest");
}

//! What the kept sums promise.

use proptest::prelude::*;
use rapport_events::{CleanEvent, EventTime, Position};

use super::*;
use crate::{
    dataset::log::{Source, from_events},
    kept::file,
};

const BOUNDS: Bounds = Bounds { items: 100, customers: 100, bytes: 1 << 24 };

fn identity() -> Identity {
    Identity { tenant: Tenant::parse("demo").unwrap(), decays: vec![0.6, 0.95], since: None, event_types: Vec::new() }
}

fn event(offset: i64, (customer, item, time): (u8, u8, i64)) -> LoggedEvent {
    LoggedEvent {
        position: Position { partition: i32::from(customer % 2), offset },
        event: CleanEvent {
            tenant: identity().tenant,
            event_id: format!("e{offset}"),
            kind: "view".into(),
            customer_id: format!("c{customer}"),
            item_id: Some(format!("i{item}")),
            category: None,
            session_id: None,
            segment: None,
            time: EventTime::from_ms(time),
            received_at: EventTime::from_ms(time),
            value: None,
        },
    }
}

fn nobody() -> Forgotten {
    Forgotten::nobody(&identity().tenant)
}

/// The data set of a whole log, and its sums added up at once.
fn batch(events: &[LoggedEvent]) -> Option<(Dataset, Sums)> {
    let limits = crate::dataset::Limits { events: 10_000, items: 100 };
    let source = Source {
        tenant: identity().tenant,
        since: None,
        event_types: Vec::new(),
        limits,
        memory: crate::dataset::Memory::default(),
    };
    let data = from_events(events, &source).ok()?;
    let mut sums = Sums::new(data.width() - 1, &identity().decays).unwrap();
    data.customers.iter().for_each(|customer| sums.add(&customer.items, 0));
    Some((data, sums))
}

/// To 1e-9, where the newest item of one event adds 1.
fn same(a: &Sums, b: &Sums) -> bool {
    let close = |a: &[f64], b: &[f64]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-9 * a.abs().max(1.0))
    };
    close(a.gram(), b.gram()) && close(a.targets(), b.targets())
}

/// Customers who do not all come in order, in a shuffled log that is cut into flushes.
fn logs() -> impl Strategy<Value = (Vec<LoggedEvent>, Vec<usize>)> {
    let events = proptest::collection::vec((0..4_u8, 0..9_u8, 0..40_i64), 10..120);
    (events, any::<u64>(), proptest::collection::vec(1..40_usize, 1..12)).prop_map(|(events, seed, flushes)| {
        let mut log: Vec<LoggedEvent> = (0..).zip(events).map(|(offset, raw)| event(offset, raw)).collect();
        log.sort_by_key(|e| (e.position.offset as u64 + 1).wrapping_mul(seed | 1).rotate_left(17));
        (log, flushes)
    })
}

/// Everything, flush by flush.
fn kept(log: &[LoggedEvent], flushes: &[usize], mut between: impl FnMut(Kept) -> Kept) -> Kept {
    let mut kept = Kept::new(identity(), BOUNDS).unwrap();
    let mut rest = log;
    for size in flushes.iter().cycle() {
        let (flush, later) = rest.split_at((*size).min(rest.len()));
        flush.iter().for_each(|event| kept.take(event, &nobody()).unwrap());
        kept.fold(&|| false).unwrap();
        kept = between(kept);
        rest = later;
        if rest.is_empty() {
            return kept;
        }
    }
    kept
}

proptest! {
    #[test]
    fn in_any_order_and_cut_into_any_flushes_the_sums_are_those_of_the_whole_log((log, flushes) in logs()) {
        let Some((data, sums)) = batch(&log) else { return Ok(()) };
        let kept = kept(&log, &flushes, |kept| kept);
        prop_assert_eq!(kept.fits(&data, &identity().decays), Ok(()));
        prop_assert!(same(&kept.sums(&data).unwrap(), &sums));
    }

    #[test]
    fn a_restart_after_every_flush_changes_nothing((log, flushes) in logs()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("demo.sums");
        let whole = kept(&log, &flushes, |kept| kept);
        let restarted = kept(&log, &flushes, |before| {
            file::save(&path, &before).unwrap();
            let after = file::load(&path, BOUNDS).unwrap().unwrap();
            assert_eq!((after.events(), after.bytes(), after.place()), (before.events(), before.bytes(), before.place()));
            after
        });
        let items: Vec<Option<usize>> = (0..whole.items.len()).map(Some).collect();
        prop_assert_eq!(&whole.items, &restarted.items);
        prop_assert!(same(&whole.sums.rearranged(&items).unwrap(), &restarted.sums.rearranged(&items).unwrap()));
    }

    #[test]
    fn a_forgotten_customer_has_never_been((log, flushes) in logs()) {
        let folder = tempfile::tempdir().unwrap();
        Forgotten::record(folder.path(), &identity().tenant, "c1").unwrap();
        let list = Forgotten::read(folder.path(), &identity().tenant).unwrap();
        let mut kept = kept(&log, &flushes, |kept| kept);
        let others: Vec<LoggedEvent> = log.iter().filter(|e| e.event.customer_id != "c1").cloned().collect();
        prop_assert_eq!(kept.forget(&list), log.len() - others.len());
        log.iter().filter(|e| e.event.customer_id == "c1").for_each(|e| kept.take(e, &list).unwrap());
        kept.fold(&|| false).unwrap();
        let Some((data, sums)) = batch(&others) else { return Ok(()) };
        prop_assert_eq!(kept.fits(&data, &identity().decays), Ok(()));
        prop_assert!(same(&kept.sums(&data).unwrap(), &sums));
    }
}

#[test]
fn a_file_that_is_not_as_it_was_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("demo.sums");
    assert!(file::load(&path, BOUNDS).unwrap().is_none());
    let log: Vec<LoggedEvent> = (0..20).map(|i| event(i, ((i % 3) as u8, (i % 7) as u8, i))).collect();
    file::save(&path, &kept(&log, &[7], |kept| kept)).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for at in (0..bytes.len()).step_by(31) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        assert!(file::load(&path, BOUNDS).unwrap_err().to_string().contains("damaged"));
        std::fs::write(&path, &bytes[..at]).unwrap();
        assert!(file::load(&path, BOUNDS).is_err());
    }
}

#[test]
fn more_than_may_be_kept_is_refused_with_the_limit() {
    let mut kept = Kept::new(identity(), Bounds { items: 2, customers: 2, bytes: 1 << 20 }).unwrap();
    for (offset, customer, item) in [(0, 0, 0), (1, 1, 1), (2, 0, 1)] {
        kept.take(&event(offset, (customer, item, offset)), &nobody()).unwrap();
    }
    let refused = |kept: &mut Kept, raw| kept.take(&event(9, raw), &nobody()).unwrap_err().to_string();
    assert!(refused(&mut kept, (0, 7, 9)).contains("more than 2 items"));
    assert!(refused(&mut kept, (5, 1, 9)).contains("more than 2 customers"));
    let mut small = Kept::new(identity(), Bounds { bytes: 100, ..BOUNDS }).unwrap();
    (0..20).for_each(|i| small.take(&event(i, (0, i as u8, i)), &nobody()).unwrap());
    assert!(small.fold(&|| false).unwrap_err().to_string().contains("more than 100 bytes"));
}

#[test]
fn sums_of_other_decays_or_other_events_do_not_fit() {
    let log: Vec<LoggedEvent> = (0..20).map(|i| event(i, ((i % 3) as u8, (i % 7) as u8, i))).collect();
    let (data, _) = batch(&log).unwrap();
    let all = kept(&log, &[7], |kept| kept);
    assert!(all.fits(&data, &[0.5]).unwrap_err().contains("decays"));
    let less = kept(&log[..19], &[7], |kept| kept);
    assert!(less.fits(&data, &identity().decays).unwrap_err().contains("19 events"));
}

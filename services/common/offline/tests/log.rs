//! What the log promises, on a real folder.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{path::Path, time::Duration};

use proptest::prelude::*;
use rapport_events::{CleanEvent, EventTime, LoggedEvent, Position, Tenant};
use rapport_offline::{
    LogWriter, Newer, OfflineArgs, OfflineLog, Place, Selection, ServedItem, ServedList, WriterSettings,
};

fn open(folder: &Path) -> OfflineLog {
    let args = OfflineArgs { offline_url: folder.display().to_string(), offline_fsync: false };
    OfflineLog::open(&args).unwrap()
}

fn writer(log: &OfflineLog) -> LogWriter {
    let settings = WriterSettings { orphan_age: Duration::ZERO, ..WriterSettings::default() };
    LogWriter::new(log.clone(), settings)
}

fn event(partition: i32, offset: i64) -> LoggedEvent {
    LoggedEvent {
        position: Position { partition, offset },
        event: CleanEvent {
            tenant: Tenant::parse(if offset % 5 == 0 { "acme" } else { "demo" }).unwrap(),
            event_id: format!("e{partition}-{offset}"),
            kind: "rating".into(),
            customer_id: format!("c{}", offset % 3),
            item_id: (offset % 4 != 0).then(|| format!("i{offset}")),
            category: None,
            session_id: None,
            segment: None,
            time: EventTime::from_ms(875_000_000_000 + offset * 40_000_000),
            received_at: EventTime::from_ms(1_700_000_000_123),
            value: (offset % 2 == 0).then_some(3.5),
        },
    }
}

fn offsets(log: &OfflineLog, partition: i32) -> Vec<i64> {
    let events = log.read(&Selection::default()).unwrap();
    events.iter().filter(|e| e.position.partition == partition).map(|e| e.position.offset).collect()
}

#[test]
fn events_read_back_in_the_order_of_their_offsets() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let mut writer = writer(&log);
    let mut written = Vec::new();
    for partition in [1, 0] {
        for offset in [0, 1, 2, 5, 9, 10] {
            writer.append(event(partition, offset)).unwrap();
            written.push(event(partition, offset));
            if offset == 2 {
                assert_eq!(writer.flush(partition).unwrap(), Some(2));
            }
        }
        writer.skip(partition, 12);
        assert_eq!(writer.flush(partition).unwrap(), Some(12));
    }
    written.sort_by_key(|e| e.position);
    assert_eq!(log.read(&Selection::default()).unwrap(), written);
    assert_eq!(log.committed_offset(0).unwrap(), Some(12));
    assert_eq!(log.committed_offset(7).unwrap(), None);

    let acme = Selection::of(&Tenant::parse("acme").unwrap());
    assert!(log.read(&acme).unwrap().iter().all(|e| e.event.tenant.as_str() == "acme"));
    let day = |e: &LoggedEvent| e.event.time.day();
    let first_day = Selection { to_day: Some(day(&event(0, 0))), ..Selection::default() };
    assert!(log.read(&first_day).unwrap().iter().all(|e| day(e) == day(&event(0, 0))));
}

#[test]
fn replayed_events_and_two_writers_at_once_leave_every_event_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let (mut zombie, mut heir) = (writer(&log), writer(&log));
    for offset in 0..10 {
        zombie.append(event(0, offset)).unwrap();
    }
    for offset in 0..15 {
        heir.append(event(0, offset)).unwrap();
    }
    heir.flush(0).unwrap();
    for offset in 10..20 {
        zombie.append(event(0, offset)).unwrap();
    }
    assert_eq!(zombie.flush(0).unwrap(), Some(19));
    for offset in 12..25 {
        heir.append(event(0, offset)).unwrap();
    }
    assert_eq!(heir.flush(0).unwrap(), Some(24));
    let mut third = writer(&log);
    assert_eq!(third.take_over(0).unwrap(), Some(24));
    for offset in 0..30 {
        third.append(event(0, offset)).unwrap();
    }
    assert_eq!(third.buffered(), 5);
    third.flush(0).unwrap();
    assert_eq!(offsets(&log, 0), (0..30).collect::<Vec<_>>());
}

#[test]
fn what_a_crashed_flush_left_is_not_read_and_goes_at_the_take_over() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let mut first = writer(&log);
    (0..4).for_each(|offset| first.append(event(0, offset)).unwrap());
    first.flush(0).unwrap();
    (4..8).for_each(|offset| first.append(event(0, offset)).unwrap());
    first.flush(0).unwrap();
    // The crash: the files of the second flush are there, its manifest is not.
    std::fs::remove_file(folder.path().join("_log/p0/00000000000000000004.json")).unwrap();
    assert_eq!(offsets(&log, 0), [0, 1, 2, 3]);

    let files = || {
        let days = std::fs::read_dir(folder.path().join("events/tenant=demo")).unwrap();
        days.flat_map(|day| std::fs::read_dir(day.unwrap().path()).unwrap()).count()
    };
    let before = files();
    let mut heir = writer(&log);
    assert_eq!(heir.take_over(0).unwrap(), Some(3));
    assert!(files() < before, "orphans are gone");
    (4..9).for_each(|offset| heir.append(event(0, offset)).unwrap());
    heir.flush(0).unwrap();
    assert_eq!(offsets(&log, 0), (0..9).collect::<Vec<_>>());
}

fn list(partition: i32, offset: i64) -> ServedList {
    let item = |n: i64| ServedItem {
        item_id: format!("i{n}"),
        score: n as f64 / 4.0,
        propensity: if n == 0 { 1.0 } else { 0.25 },
        sources: "sequence,trending".into(),
        arm: if n == 1 { "b".into() } else { String::new() },
    };
    ServedList {
        position: Position { partition, offset },
        tenant: Tenant::parse(if offset % 5 == 0 { "acme" } else { "demo" }).unwrap(),
        customer_id: format!("c{}", offset % 3),
        request_id: format!("r{offset}"),
        served_at: EventTime::from_ms(1_700_000_000_000 + offset * 40_000_000),
        placement: "home".into(),
        experiment: String::new(),
        arm: String::new(),
        model: "next-item".into(),
        model_version: "20261128T070000Z-abc".into(),
        cached: Some(offset % 2 == 0),
        items: (0..=offset % 3).map(item).collect(),
    }
}

#[test]
fn served_lists_come_back_whole_and_stand_apart_from_the_events() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let mut lists = LogWriter::<ServedList>::new(log.clone(), WriterSettings::default());
    let mut events = writer(&log);
    let mut written = Vec::new();
    for offset in [0, 1, 2, 3, 7, 8] {
        lists.append(list(2, offset)).unwrap();
        events.append(event(2, offset)).unwrap();
        written.push(list(2, offset));
        if offset == 3 {
            assert_eq!(lists.flush(2).unwrap(), Some(3));
        }
    }
    lists.append(list(2, 8)).unwrap();
    assert_eq!((lists.flush(2).unwrap(), events.flush(2).unwrap()), (Some(8), Some(8)));
    assert_eq!(log.read_served(&Selection::default()).unwrap(), written);
    assert_eq!(log.read(&Selection::default()).unwrap().len(), 6);
    let acme = log.read_served(&Selection::of(&Tenant::parse("acme").unwrap())).unwrap();
    assert_eq!(acme, [list(2, 0)]);
    let mut heir = LogWriter::<ServedList>::new(log, WriterSettings::default());
    assert_eq!(heir.take_over(2).unwrap(), Some(8));
}

#[test]
fn a_corrupt_or_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let mut writer = writer(&log);
    (1..3).for_each(|offset| writer.append(event(0, offset)).unwrap());
    writer.flush(0).unwrap();
    (3..5).for_each(|offset| writer.append(event(0, offset)).unwrap());
    writer.flush(0).unwrap();
    let file = &log.manifests().unwrap()[0].files[0].path;
    std::fs::write(folder.path().join(file), b"PAR1 not at all").unwrap();
    assert!(log.read(&Selection::default()).unwrap_err().to_string().contains(file.as_str()));
    std::fs::remove_file(folder.path().join(file)).unwrap();
    let error = log.read(&Selection::default()).unwrap_err().to_string();
    assert!(error.contains(file.as_str()) && error.contains("is not there"), "{error}");
    std::fs::remove_file(folder.path().join("_log/p0/00000000000000000000.json")).unwrap();
    let error = log.read(&Selection::default()).unwrap_err().to_string();
    assert!(error.contains("00000000000000000003.json: begins at offset 3"), "{error}");
}

/// The manifests after `place`, whose reader then has them.
fn follow(log: &OfflineLog, place: &mut Place) -> Vec<i64> {
    let newer = log.newer(place).unwrap();
    let Newer::Manifests(manifests) = &newer else { unreachable!("{newer:?}") };
    manifests.iter().for_each(|manifest| place.pass(manifest));
    let all = Selection::default();
    manifests
        .iter()
        .flat_map(|m| log.events_of(std::slice::from_ref(m), &all).unwrap())
        .map(|event| event.position.offset)
        .collect()
}

#[test]
fn a_reader_that_follows_gets_each_event_once_and_only_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let mut writer = writer(&log);
    let mut place = Place::default();
    assert_eq!(follow(&log, &mut place), [0; 0]);
    for (flush, partition) in [(0, 0), (1, 0), (0, 1), (2, 0)] {
        (flush * 3..flush * 3 + 3).for_each(|offset| writer.append(event(partition, offset)).unwrap());
        writer.flush(partition).unwrap();
        let mut offsets = follow(&log, &mut place);
        offsets.sort_unstable();
        assert_eq!(offsets, (flush * 3..flush * 3 + 3).collect::<Vec<_>>());
        assert_eq!(place.offset(partition), Some(flush * 3 + 2));
    }
    assert_eq!(follow(&log, &mut place), [0; 0]);
    // What comes later is left out for a reader of that place.
    writer.append(event(1, 3)).unwrap();
    writer.flush(1).unwrap();
    let mut read = 0;
    let mut count = |events: Vec<LoggedEvent>| {
        read += events.len();
        Ok::<_, rapport_offline::Error>(())
    };
    log.each_file(&Selection::default(), Some(&place), &mut count).unwrap();
    assert_eq!((read, log.read(&Selection::default()).unwrap().len()), (12, 13));
}

#[test]
fn a_log_that_was_begun_anew_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut place = Place::default();
    let write = |at: &Path, rows: i64| {
        let log = open(at);
        let mut writer = writer(&log);
        (1..=rows).for_each(|offset| writer.append(event(0, offset)).unwrap());
        writer.flush(0).unwrap();
        log
    };
    follow(&write(&folder.path().join("a"), 4), &mut place);
    for another in [open(&folder.path().join("empty")), write(&folder.path().join("b"), 3)] {
        assert_eq!(another.newer(&place).unwrap(), Newer::AnotherLog { partition: 0 });
    }
    let same = write(&folder.path().join("c"), 4);
    assert_eq!(same.newer(&place).unwrap(), Newer::Manifests(vec![]), "a copy is the same log");
}

#[test]
fn a_location_that_is_not_built_in_is_refused_with_its_name() {
    let error = OfflineLog::open(&OfflineArgs::at("gs://bucket/x")).err().unwrap();
    assert!(error.to_string().contains("gs://") && !error.retryable(), "{error}");
}

#[tokio::test]
async fn it_may_be_used_and_dropped_within_a_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let mut writer = writer(&log);
    writer.append(event(0, 0)).unwrap();
    writer.flush(0).unwrap();
    assert_eq!(offsets(&log, 0), [0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_event_survives_the_log(
        ids in ("\\PC{0,20}", "\\PC{1,20}", "\\PC{1,20}"),
        item in prop::option::of("\\PC{0,20}"), category in prop::option::of("\\PC{0,20}"),
        time in -62_135_596_800_000i64..=253_402_300_799_999,
        value in prop::option::of(prop::num::f64::NORMAL | prop::num::f64::ZERO), offset in 0..i64::MAX / 2,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path());
        let mut writer = writer(&log);
        let mut event = event(3, 1);
        event.position.offset = offset;
        event.event = CleanEvent {
            event_id: ids.0, kind: ids.1, customer_id: ids.2, item_id: item, category: category.clone(), session_id: category.clone(), segment: category,
            time: EventTime::from_ms(time), value, ..event.event
        };
        writer.append(event.clone()).unwrap();
        writer.flush(3).unwrap();
        prop_assert_eq!(log.read(&Selection::default()).unwrap(), vec![event]);
    }
}

//! Compaction changes what a log costs, and nothing of what it says: whoever is killed when.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod fragile;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema},
};
use fragile::{Fate, Fragile};
use futures::TryStreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory, path::Path};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
use rapport_events::{CleanEvent, EventTime, LoggedEvent, Position, Tenant};
use rapport_offline::{
    Compaction, CompactionSettings, LogWriter, Newer, OfflineArgs, OfflineLog, Place, Selection, ServedItem,
    ServedList, WriterSettings,
};

const AT_ONCE: CompactionSettings = CompactionSettings { rows: 40, settle: Duration::ZERO, grace: Duration::ZERO };
const GRACE: CompactionSettings =
    CompactionSettings { rows: 40, settle: Duration::ZERO, grace: Duration::from_secs(3600) };

fn on(store: &Arc<dyn ObjectStore>) -> OfflineLog {
    OfflineLog::on(Arc::clone(store)).unwrap()
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
            category: (offset % 3 == 0).then(|| "shoes".into()),
            session_id: None,
            segment: None,
            time: EventTime::from_ms(875_000_000_000 + offset * 4_000_000),
            received_at: EventTime::from_ms(1_700_000_000_123),
            value: (offset % 2 == 0).then_some(offset as f64 / 3.0),
        },
    }
}

fn list(partition: i32, offset: i64) -> ServedList {
    let item = |n: i64| ServedItem {
        item_id: format!("i{n}"),
        score: n as f64 / 3.0,
        propensity: 0.25,
        sources: "sequence,trending".into(),
        arm: String::new(),
    };
    ServedList {
        position: Position { partition, offset },
        tenant: Tenant::parse("demo").unwrap(),
        customer_id: format!("c{}", offset % 3),
        request_id: format!("r{offset}"),
        served_at: EventTime::from_ms(1_700_000_000_000 + offset * 4_000_000),
        placement: "home".into(),
        experiment: String::new(),
        arm: String::new(),
        model: "next-item".into(),
        model_version: "20261128T070000Z-abc".into(),
        cached: None,
        items: (0..=offset % 3).map(item).collect(),
    }
}

/// Flushes of three events each, of which one offset in seven is none.
fn write(log: &OfflineLog, partition: i32, offsets: std::ops::Range<i64>) {
    let mut writer = LogWriter::<LoggedEvent>::new(log.clone(), WriterSettings::default());
    for offset in offsets {
        match offset % 7 {
            3 => writer.skip(partition, offset),
            _ => writer.append(event(partition, offset)).unwrap(),
        }
        if offset % 3 == 2 {
            writer.flush(partition).unwrap();
        }
    }
    writer.flush(partition).unwrap();
}

fn filled() -> Arc<InMemory> {
    let memory = Arc::new(InMemory::new());
    let store: Arc<dyn ObjectStore> = Arc::clone(&memory) as _;
    let log = on(&store);
    write(&log, 0, 0..100);
    write(&log, 4, 0..31);
    let mut lists = LogWriter::<ServedList>::new(log, WriterSettings::default());
    for offset in 0..40 {
        lists.append(list(1, offset)).unwrap();
        lists.flush(1).unwrap();
    }
    memory
}

fn everything(log: &OfflineLog) -> (Vec<LoggedEvent>, Vec<ServedList>) {
    (log.read(&Selection::default()).unwrap(), log.read_served(&Selection::default()).unwrap())
}

fn never() -> bool {
    false
}

fn compact(log: &OfflineLog, settings: &CompactionSettings) -> Compaction {
    log.compact(settings, &never).unwrap()
}

/// Parquet files of the events as they lie there, and as the manifests name them.
fn files(store: &Arc<dyn ObjectStore>) -> (BTreeSet<String>, BTreeSet<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listed = store.list(Some(&Path::from("events"))).map_ok(|meta| meta.location.to_string());
    let there = runtime.block_on(listed.try_collect()).unwrap();
    let named = on(store).manifests().unwrap().into_iter().flat_map(|manifest| manifest.files);
    (there, named.map(|file| file.path).collect())
}

/// Passes until one has nothing to do.
fn settle_down(store: &Arc<dyn ObjectStore>) {
    for _ in 0..10 {
        if compact(&on(store), &AT_ONCE) == Compaction::default() {
            return;
        }
    }
    panic!("compaction does not come to an end");
}

#[test]
fn a_compacted_log_says_the_same_in_fewer_files_and_deletes_the_others_when_readers_have_ended() {
    let store: Arc<dyn ObjectStore> = filled();
    let log = on(&store);
    let (before, manifests) = (everything(&log), log.manifests().unwrap());
    let done = compact(&log, &GRACE);
    assert!(done.manifests_merged > 40 && done.deleted == 0 && done.overtaken == 0, "{done:?}");
    assert_eq!(everything(&log), before);
    let fewer = log.manifests().unwrap();
    assert!(fewer.len() * 4 < manifests.len(), "{} of {}", fewer.len(), manifests.len());
    assert!(fewer.iter().all(|manifest| manifest.files.iter().map(|file| file.rows).sum::<usize>() <= 40));

    // Who is in the middle of a scan still finds its files ...
    let all = Selection::default();
    let again = |manifests: &[rapport_offline::Manifest]| log.events_of(manifests, &all);
    assert_eq!(again(&manifests).unwrap().len(), before.0.len());
    assert_eq!(compact(&log, &GRACE), Compaction::default());
    // ... until the grace has ended.
    let swept = compact(&log, &AT_ONCE);
    assert!(swept.deleted > 80, "{swept:?}");
    assert!(again(&manifests).unwrap_err().to_string().contains("is not there"));
    assert_eq!(everything(&log), before);
    settle_down(&store);
    let (there, named) = files(&store);
    assert_eq!(there, named);
    assert_eq!(log.committed_offset(0).unwrap(), Some(99));
}

#[test]
fn whoever_is_killed_at_any_step_leaves_a_log_that_says_the_same_and_is_tidied_up_by_the_next() {
    let memory = filled();
    let before = everything(&on(&(Arc::clone(&memory) as _)));
    for fate in [Fate::Before, Fate::After, Fate::AnswerLost] {
        // Twice: the second pass deletes too.
        for passes in [1, 2] {
            let mut steps = 0;
            for at in 0.. {
                let store: Arc<dyn ObjectStore> = Arc::new(memory.fork());
                let fragile = Fragile::new(Arc::clone(&store), at, fate.clone());
                let log = OfflineLog::on(Arc::new(fragile.clone())).unwrap();
                let killed = (0..passes).try_for_each(|_| log.compact(&AT_ONCE, &never).map(drop));
                assert_eq!(killed.is_err(), fragile.came_to_it() && !matches!(fate, Fate::AnswerLost), "{killed:?}");
                assert_eq!(everything(&on(&store)), before, "step {at}");
                if at % 3 == 0 {
                    settle_down(&store);
                    assert_eq!(everything(&on(&store)), before, "step {at}");
                    let (there, named) = files(&store);
                    assert_eq!(there, named, "step {at}");
                }
                if !fragile.came_to_it() {
                    break;
                }
                steps += 1;
            }
            assert!(steps > 20 * passes, "{steps}");
        }
    }
}

#[test]
fn of_two_passes_at_once_one_wins_and_the_log_says_the_same() {
    let memory = filled();
    let before = everything(&on(&(Arc::clone(&memory) as _)));
    // The other one also takes in what was written meanwhile.
    let mut after = before.clone();
    after.0.extend((100..130).filter(|offset| offset % 7 != 3).map(|offset| event(0, offset)));
    after.0.sort_unstable_by_key(|event| event.position);
    let mut overtaken = 0;
    for at in (0..).step_by(2) {
        let store: Arc<dyn ObjectStore> = Arc::new(memory.fork());
        let inner = Arc::clone(&store);
        let other = move || {
            let inner = Arc::clone(&inner);
            // As another process would, twice: it deletes what it has replaced.
            let thread = std::thread::spawn(move || {
                write(&on(&inner), 0, 100..130);
                let rows = if at % 4 == 0 { 25 } else { 10_000 };
                compact(&on(&inner), &CompactionSettings { rows, ..AT_ONCE });
                compact(&on(&inner), &CompactionSettings { rows, ..AT_ONCE });
            });
            thread.join().unwrap();
        };
        let fragile = Fragile::new(Arc::clone(&store), at, Fate::Meanwhile(Arc::new(other)));
        let log = OfflineLog::on(Arc::new(fragile.clone())).unwrap();
        overtaken += log.compact(&AT_ONCE, &never).unwrap().overtaken;
        let expected = if fragile.came_to_it() { &after } else { &before };
        assert_eq!(&everything(&on(&store)), expected, "step {at}");
        settle_down(&store);
        assert_eq!(&everything(&on(&store)), expected, "step {at}");
        let (there, named) = files(&store);
        assert_eq!(there, named, "step {at}");
        if !fragile.came_to_it() {
            break;
        }
    }
    assert!(overtaken > 10, "{overtaken}");
}

#[test]
fn writers_readers_and_two_compactors_at_once_agree_on_a_real_folder() {
    let folder = tempfile::tempdir().unwrap();
    let args = OfflineArgs { offline_fsync: false, ..OfflineArgs::at(folder.path().to_string_lossy()) };
    let log = OfflineLog::open(&args).unwrap();
    let over = AtomicBool::new(false);
    let settings = CompactionSettings { grace: Duration::from_secs(2), ..AT_ONCE };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    log.compact(&settings, &never).unwrap();
                }
            });
        }
        scope.spawn(|| {
            let mut least = 0;
            while !over.load(Ordering::Relaxed) {
                let events = log.read(&Selection::default()).unwrap();
                let positions: Vec<Position> = events.iter().map(|event| event.position).collect();
                assert!(positions.windows(2).all(|two| two[0] < two[1]), "each once");
                assert!(positions.len() >= least, "{} after {least}", positions.len());
                least = positions.len();
            }
        });
        write(&log, 0, 0..600);
        write(&log, 1, 0..300);
        over.store(true, Ordering::Relaxed);
    });
    let expected = |partition, offsets: std::ops::Range<i64>| {
        offsets.filter(|offset| offset % 7 != 3).map(move |offset| event(partition, offset))
    };
    let written: Vec<LoggedEvent> = expected(0, 0..600).chain(expected(1, 0..300)).collect();
    assert_eq!(log.read(&Selection::default()).unwrap(), written);
}

#[test]
fn a_store_that_writes_over_what_is_there_is_refused() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    on(&store).check().unwrap();
    let log = OfflineLog::on(Arc::new(Fragile::new(Arc::clone(&store), 0, Fate::Overwrites))).unwrap();
    let error = log.check().unwrap_err();
    assert!(error.to_string().contains("If-None-Match") && !error.retryable(), "{error}");
    let folder = tempfile::tempdir().unwrap();
    OfflineLog::open(&OfflineArgs::at(folder.path().to_string_lossy())).unwrap().check().unwrap();
}

#[test]
fn a_writer_that_slept_through_a_compaction_writes_no_event_twice() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let log = on(&store);
    let mut sleeper = LogWriter::<LoggedEvent>::new(log.clone(), WriterSettings::default());
    (0..20).for_each(|offset| sleeper.append(event(0, offset)).unwrap());
    write(&log, 0, 0..120);
    // The manifest that would have stood in its way is deleted.
    compact(&log, &AT_ONCE);
    compact(&log, &AT_ONCE);
    let before = log.read(&Selection::default()).unwrap();
    assert_eq!(sleeper.flush(0).unwrap(), Some(119));
    assert_eq!(log.read(&Selection::default()).unwrap(), before);
    // It goes on behind, where another one goes on too.
    (100..130).for_each(|offset| sleeper.append(event(0, offset)).unwrap());
    assert_eq!(sleeper.flush(0).unwrap(), Some(129));
    settle_down(&store);
    let offsets: Vec<i64> = log.read(&Selection::default()).unwrap().iter().map(|e| e.position.offset).collect();
    assert_eq!(offsets, (0..130).filter(|offset| offset % 7 != 3 || *offset >= 120).collect::<Vec<_>>());
}

#[test]
fn a_reader_that_is_up_to_date_goes_on_and_one_that_was_overtaken_hears_of_it() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let log = on(&store);
    write(&log, 0, 0..60);
    let (mut current, mut late) = (Place::default(), Place::default());
    let manifests = log.manifests().unwrap();
    manifests.iter().for_each(|manifest| current.pass(manifest));
    manifests.iter().take(5).for_each(|manifest| late.pass(manifest));
    let newer = |place: &Place| match log.newer(place).unwrap() {
        Newer::Manifests(manifests) => Some(manifests.iter().map(|manifest| (manifest.first, manifest.last)).collect()),
        Newer::AnotherLog { .. } => None,
    };
    compact(&log, &AT_ONCE);
    assert_eq!(newer(&current), Some(vec![]));
    assert_eq!(newer(&late), None);
    write(&log, 0, 60..66);
    assert_eq!(newer(&current), Some(vec![(60, 62), (63, 65)]));
    // Files that were merged with what came later are read up to where the reader was.
    write(&log, 0, 66..130);
    compact(&log, &AT_ONCE);
    for (place, until) in [(&current, 59), (&late, 14)] {
        let mut offsets = Vec::new();
        let mut take = |events: Vec<LoggedEvent>| {
            offsets.extend(events.iter().map(|event| event.position.offset));
            Ok::<_, rapport_offline::Error>(())
        };
        log.each_file(&Selection::default(), Some(place), &mut take).unwrap();
        offsets.sort_unstable();
        assert_eq!(offsets, (0..=until).filter(|offset| offset % 7 != 3).collect::<Vec<_>>());
    }
}

/// A file as another build would have written it: with a column more, without one that came later.
fn rewrite(store: &Arc<dyn ObjectStore>, path: &str, without: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let path = Path::from(path);
    let bytes = runtime.block_on(async { store.get(&path).await.unwrap().bytes().await.unwrap() });
    let batches: Vec<RecordBatch> =
        ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap().collect::<Result<_, _>>().unwrap();
    let [batch] = batches.as_slice() else { panic!("one batch") };
    let (mut fields, mut columns): (Vec<Field>, Vec<ArrayRef>) = batch
        .schema()
        .fields()
        .iter()
        .zip(batch.columns())
        .filter(|(field, _)| field.name() != without)
        .map(|(field, column)| (field.as_ref().clone(), Arc::clone(column)))
        .unzip();
    fields.push(Field::new("of_tomorrow", DataType::Int64, false));
    columns.push(Arc::new(Int64Array::from(vec![7; batch.num_rows()])));
    let schema = Arc::new(Schema::new(fields));
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), None).unwrap();
    writer.write(&RecordBatch::try_new(schema, columns).unwrap()).unwrap();
    runtime.block_on(store.put(&path, writer.into_inner().unwrap().into())).unwrap();
}

#[test]
fn a_file_of_before_a_column_reads_as_null_there_and_a_column_of_tomorrow_is_kept() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let log = on(&store);
    let mut writer = LogWriter::<LoggedEvent>::new(log.clone(), WriterSettings::default());
    for offset in 0..20 {
        // All of one day.
        let mut event = event(0, offset * 5);
        event.event.time = EventTime::from_ms(875_000_000_000);
        writer.append(event).unwrap();
        writer.flush(0).unwrap();
    }
    let mut expected = log.read(&Selection::default()).unwrap();
    let old = log.manifests().unwrap()[3].files[0].path.clone();
    rewrite(&store, &old, "category");
    assert_eq!(expected[3].event.category.take().as_deref(), Some("shoes"));
    assert_eq!(log.read(&Selection::default()).unwrap(), expected);

    compact(&log, &AT_ONCE);
    compact(&log, &AT_ONCE);
    assert_eq!(log.read(&Selection::default()).unwrap(), expected);
    let merged = log.manifests().unwrap()[0].files[0].clone();
    assert_eq!(merged.rows, 19);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bytes = runtime.block_on(async { store.get(&Path::from(merged.path.as_str())).await.unwrap().bytes().await });
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(bytes.unwrap()).unwrap().build().unwrap();
    let batch = reader.next().unwrap().unwrap();
    let tomorrow: &Int64Array = batch.column_by_name("of_tomorrow").unwrap().as_any().downcast_ref().unwrap();
    assert_eq!(tomorrow.iter().flatten().collect::<Vec<_>>(), [7]);

    // What every event must have is missed.
    let old = log.manifests().unwrap().last().unwrap().files[0].path.clone();
    rewrite(&store, &old, "event_id");
    assert!(log.read(&Selection::default()).unwrap_err().to_string().contains("event_id"));
}

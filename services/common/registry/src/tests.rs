use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use rapport_events::{EventTime, Tenant};

use super::*;

fn tenant() -> Tenant {
    Tenant::parse("acme").unwrap()
}

fn description() -> Description {
    let gate = Gate { passed: true, reason: "beats popularity".into() };
    let verdict = Verdict { metrics: BTreeMap::from([("ndcg@10".into(), 0.1)]), gate };
    Description::next_item("ridge", "2026-11-24T06:00:00Z".into(), 50, 2, verdict)
}

fn fill(folder: &Path) -> Result<(), ArtifactError> {
    let write = |name: &str, content: &[u8]| fs::write(folder.join(name), content).unwrap();
    write(files::MODEL, b"an onnx graph");
    write(files::ITEMS, br#"["","a","b"]"#);
    write(files::NEIGHBOURS, br#"{"a":[["b",0.5]]}"#);
    Ok(())
}

fn written(root: &Path, version: &str) -> ArtifactRef {
    Registry::open(root).unwrap().write(&tenant(), "next-item", version, description(), fill).unwrap()
}

fn broken(damage: impl FnOnce(&Path)) -> ArtifactError {
    let root = tempfile::tempdir().unwrap();
    let artifact = written(root.path(), "1");
    damage(&artifact.path);
    Artifact::open(&artifact.path, Some(&artifact.manifest_sha256)).unwrap_err()
}

#[test]
fn what_was_written_opens_and_reads_back() {
    let root = tempfile::tempdir().unwrap();
    let written = written(root.path(), "1");
    let artifact = Artifact::open(&written.path, Some(&written.manifest_sha256)).unwrap();
    assert_eq!(artifact.manifest().description, description());
    assert_eq!(artifact.items().unwrap().index_of("b"), Some(2));
    assert_eq!(artifact.items().unwrap().id(0), None);
    assert_eq!(artifact.neighbours().unwrap().of("a"), [Neighbour { item: "b".into(), cosine: 0.5 }]);
    assert_eq!(artifact.neighbours().unwrap().of("unknown"), []);
}

#[test]
fn a_changed_missing_or_added_file_is_refused_by_name() {
    let changed = broken(|folder| fs::write(folder.join(files::MODEL), b"an onnx grapH").unwrap());
    assert!(matches!(&changed, ArtifactError::Checksum { file, .. } if file == files::MODEL), "{changed}");
    let cut = broken(|folder| fs::write(folder.join(files::MODEL), b"an onnx").unwrap());
    assert!(matches!(&cut, ArtifactError::Size { file, found: 7, .. } if file == files::MODEL), "{cut}");
    let missing = broken(|folder| fs::remove_file(folder.join(files::ITEMS)).unwrap());
    assert!(matches!(&missing, ArtifactError::Missing { file, .. } if file == files::ITEMS), "{missing}");
    let added = broken(|folder| fs::write(folder.join("extra.so"), b"x").unwrap());
    assert!(matches!(&added, ArtifactError::Unexpected { file, .. } if file == "extra.so"), "{added}");
    assert!([changed, cut, missing, added].iter().all(|e| e.corrupt() && !e.retryable()));
}

#[test]
fn a_link_in_the_place_of_a_file_is_refused() {
    let linked = broken(|folder| {
        fs::rename(folder.join(files::MODEL), folder.with_extension("elsewhere")).unwrap();
        std::os::unix::fs::symlink(folder.with_extension("elsewhere"), folder.join(files::MODEL)).unwrap();
    });
    assert!(matches!(&linked, ArtifactError::Malformed { file, .. } if file == files::MODEL), "{linked}");
}

#[test]
fn a_manifest_of_another_format_or_another_announcement_is_refused() {
    let edit = |from: &str, to: &str, announced: bool| {
        let root = tempfile::tempdir().unwrap();
        let artifact = written(root.path(), "1");
        let path = artifact.path.join(files::MANIFEST);
        fs::write(&path, fs::read_to_string(&path).unwrap().replace(from, to)).unwrap();
        Artifact::open(&artifact.path, announced.then_some(artifact.manifest_sha256.as_str())).unwrap_err()
    };
    let newer = edit("\"format_version\": 1", "\"format_version\": 2", false);
    assert!(matches!(newer, ArtifactError::UnsupportedFormat { found: 2, supported: 1, .. }), "{newer}");
    let swapped = edit("\"ridge\"", "\"other\"", true);
    assert!(matches!(swapped, ArtifactError::Manifest { .. }), "{swapped}");
    let escape = edit("\"model.onnx\"", "\"../model.onnx\"", false);
    assert!(matches!(escape, ArtifactError::Malformed { .. }), "{escape}");
}

#[test]
fn a_version_that_is_not_there_is_told_apart_from_a_broken_one() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::open(root.path()).unwrap();
    let error = registry.artifact(&tenant(), "next-item", "9").unwrap_err();
    assert!(matches!(error, ArtifactError::NoSuchVersion { .. }) && !error.corrupt());
}

#[test]
fn a_writer_that_fails_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::open(root.path()).unwrap();
    let failed = registry.write(&tenant(), "next-item", "1", description(), |folder| {
        fill(folder)?;
        Err(ArtifactError::Exists { path: PathBuf::from("says the writer") })
    });
    assert!(failed.is_err());
    assert_eq!(fs::read_dir(root.path().join("acme/next-item")).unwrap().count(), 0);
}

#[test]
fn opening_removes_what_a_dead_writer_left_but_not_what_a_live_one_fills() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::open(root.path()).unwrap();
    let left = root.path().join("acme/next-item/.tmp-1-99-0");
    fs::create_dir_all(&left).unwrap();
    registry
        .write(&tenant(), "next-item", "2", description(), |folder| {
            Registry::open(root.path())?;
            assert!(!left.exists());
            fill(folder)
        })
        .unwrap();
    assert_eq!(registry.versions(&tenant(), "next-item").unwrap().len(), 1);
}

#[test]
fn a_version_is_written_once() {
    let root = tempfile::tempdir().unwrap();
    let first = written(root.path(), "1");
    let again = Registry::open(root.path()).unwrap().write(&tenant(), "next-item", "1", description(), fill);
    assert!(matches!(again.unwrap_err(), ArtifactError::Exists { .. }));
    Artifact::open(first.path, Some(&first.manifest_sha256)).unwrap();
}

#[test]
fn versions_are_listed_newest_first_and_a_broken_one_stays_in_the_list() {
    let root = tempfile::tempdir().unwrap();
    for version in ["20261124T060000Z-ridge-aa", "20261125T060000Z-ligr-bb", "20261123T060000Z-ridge-cc"] {
        written(root.path(), version);
    }
    fs::write(root.path().join("acme/next-item/20261124T060000Z-ridge-aa/manifest.json"), b"{").unwrap();
    let listed = Registry::read_only(root.path()).versions(&tenant(), "next-item").unwrap();
    let names: Vec<_> = listed.iter().map(|l| (&l.version[..8], l.manifest.is_ok())).collect();
    assert_eq!(names, [("20261125", true), ("20261124", false), ("20261123", true)]);
}

#[test]
fn the_record_of_what_is_live_and_its_announcement_say_the_same() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::open(root.path()).unwrap();
    assert_eq!(registry.live(&tenant(), "next-item").unwrap(), None);
    let now = EventTime::from_ms(1_764_000_000_000);
    let first = Live::succeeding(None, &written(root.path(), "1"), "promoted".into(), now);
    let second = Live::succeeding(Some(&first), &written(root.path(), "2"), "better".into(), now);
    assert_eq!((second.epoch, second.previous.as_str(), second.champion.as_str()), (2, "1", "2"));
    registry.set_live(&second).unwrap();
    assert_eq!(registry.live(&tenant(), "next-item").unwrap().as_ref(), Some(&second));
    assert_eq!(Live::try_from(second.announcement()).unwrap(), second);
    registry.announced(&second.artifact, &second.manifest_sha256).unwrap();
}

#[test]
fn a_trial_leaves_the_champion_its_epoch_and_ends_when_another_goes_live() {
    let reference = |version: &str| ArtifactRef {
        tenant: Tenant::parse("acme").unwrap(),
        name: "next-item".into(),
        version: version.into(),
        path: "x".into(),
        manifest_sha256: version.into(),
    };
    let now = EventTime::from_ms(1_000);
    let live = Live::succeeding(None, &reference("v1"), "first".into(), now);
    let tried = live.challenged_by(Some(Challenger::of(&reference("v2"), 0.25)), "trial".into(), now);
    assert_eq!((tried.epoch, tried.champion_since(), tried.champion.as_str()), (2, 1, "v1"));
    assert_eq!(Live::try_from(tried.announcement()).unwrap(), tried);
    let after = Live::succeeding(Some(&tried), &reference("v2"), "won".into(), now);
    assert_eq!((after.epoch, after.champion_since(), after.challenger), (3, 3, None));
    // A record from before there were trials.
    let mut old = serde_json::to_value(&live).unwrap();
    old.as_object_mut().unwrap().remove("champion_epoch");
    let old: Live = serde_json::from_value(old).unwrap();
    assert_eq!((old.champion_since(), old.challenger), (1, None));
}

#[test]
fn an_announcement_cannot_lead_out_of_the_registry() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::open(root.path()).unwrap();
    for artifact in ["../../etc/passwd", "acme/../x", "/etc/x/y", "acme/next-item/..", "acme/next-item/1/2", ""] {
        let error = registry.announced(artifact, "").unwrap_err();
        assert!(matches!(error, ArtifactError::Name { .. }), "{artifact}: {error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes: Vec<u8>, text in ".{0,200}") {
        for bytes in [bytes.as_slice(), text.as_bytes()] {
            prop_assert!(Manifest::parse(Path::new("x"), bytes).is_err());
            ItemTable::parse(bytes).ok();
            Neighbours::parse(bytes).ok();
        }
    }

    #[test]
    fn item_tables_read_back_as_they_were_written(ids in proptest::collection::btree_set("[^\u{0}]{1,20}", 1..50)) {
        let table = ItemTable::from_ids(std::iter::once(String::new()).chain(ids).collect()).unwrap();
        prop_assert_eq!(ItemTable::parse(&table.to_json()).unwrap(), table);
    }
}

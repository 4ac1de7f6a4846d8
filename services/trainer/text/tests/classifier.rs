//! Training, saving and opening classifiers, on a tiny model.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::{
    cell::RefCell,
    fs,
    path::Path,
    sync::{Mutex, MutexGuard},
};

use common::tiny_folder;
use rapport_text_encoder::{Classifier, Encoder, Error, Example, FineTune, Frozen, Made, Progress, UNWATCHED, Watch};

/// Trainings draw from one generator of libtorch: the tests that compare bits take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// "card" or "money" decides; the other words say nothing.
fn examples() -> Vec<Example<'static>> {
    let cards = ["card", "card lost", "lost card", "card sent", "rate card", "card cards", "sent card lost", "my card"];
    let money = [
        "money",
        "money lost",
        "lost money",
        "money sent",
        "rate money",
        "money moneys",
        "sent money lost",
        "my money",
    ];
    let labelled = |texts: [&'static str; 8], label| texts.map(|text| Example { text, label });
    [labelled(money, "transfer"), labelled(cards, "card")].concat()
}

fn quick() -> FineTune {
    FineTune { epochs: 3, batch: 4, learning_rate: 1e-3, validation_share: 0.25, seed: 7, ..FineTune::default() }
}

const ASKED: [&str; 5] = ["sent card", "lost rate money", "", "card card card", "money"];

fn frozen(folder: &Path) -> Classifier {
    Classifier::fit_frozen(Encoder::open(folder).unwrap(), &examples(), &Frozen::default(), &UNWATCHED).unwrap()
}

fn tuned(folder: &Path, recipe: &FineTune) -> Classifier {
    Classifier::fine_tune(Encoder::open(folder).unwrap(), &examples(), recipe, &UNWATCHED).unwrap()
}

#[test]
fn both_ways_learn_what_the_words_tell() {
    let _turn = turn();
    let folder = tiny_folder();
    for classifier in [frozen(folder.path()), tuned(folder.path(), &quick())] {
        assert_eq!(classifier.labels(), ["card", "transfer"]);
        // Random vectors tell nearly as much as learned ones, but not all.
        assert!(classifier.quality(&examples()).unwrap().unwrap().accuracy > 0.9);
        let rows = classifier.classify(&ASKED).unwrap();
        assert_eq!((classifier.label(&rows[0]), classifier.label(&rows[1])), ("card", "transfer"));
        for row in rows {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn a_saved_classifier_says_the_same_to_the_bit() {
    let _turn = turn();
    let folder = tiny_folder();
    let parent = tempfile::tempdir().unwrap();
    for (name, classifier) in [("frozen", frozen(folder.path())), ("tuned", tuned(folder.path(), &quick()))] {
        let saved = parent.path().join(name);
        classifier.save(&saved).unwrap();
        let opened = Classifier::open(&saved).unwrap();
        assert_eq!(opened.classify(&ASKED).unwrap(), classifier.classify(&ASKED).unwrap());
        assert_eq!((opened.labels(), opened.made()), (classifier.labels(), classifier.made()));
        let encoder = Encoder::open(&saved).unwrap();
        assert_eq!(encoder.embed(&ASKED).unwrap(), classifier.encoder().embed(&ASKED).unwrap());
        assert!(matches!(classifier.save(&saved), Err(Error::Exists { .. })));
    }
}

#[test]
fn a_shorter_limit_is_saved_with_the_classifier() {
    let folder = tiny_folder();
    let parent = tempfile::tempdir().unwrap();
    let encoder = Encoder::open(folder.path()).unwrap().with_sequence_limit(5).unwrap();
    let classifier = Classifier::fit_frozen(encoder, &examples(), &Frozen::default(), &UNWATCHED).unwrap();
    classifier.save(parent.path().join("saved")).unwrap();
    assert_eq!(Classifier::open(parent.path().join("saved")).unwrap().encoder().sequence_limit(), 5);
}

#[test]
fn the_same_seed_gives_the_same_classifier_and_another_seed_another() {
    let _turn = turn();
    let folder = tiny_folder();
    let every_pass = FineTune { validation_share: 0.0, ..quick() };
    let rows = |recipe: &FineTune| tuned(folder.path(), recipe).classify(&ASKED).unwrap();
    assert_eq!(rows(&every_pass), rows(&every_pass));
    assert_ne!(rows(&every_pass), rows(&FineTune { seed: 8, ..every_pass.clone() }));
}

#[test]
fn fine_tuning_is_never_worse_on_validation_than_its_frozen_start() {
    let _turn = turn();
    let folder = tiny_folder();
    // A learning rate that destroys the network.
    let wild = FineTune { learning_rate: 10.0, head_learning_rate: 10.0, ..quick() };
    let heads = RefCell::new(Vec::new());
    let report = |progress: Progress| {
        if progress.step == "fit head" {
            heads.borrow_mut().extend(progress.validation);
        }
    };
    let watch = Watch { report: &report, stop: &|| false };
    let classifier = Classifier::fine_tune(Encoder::open(folder.path()).unwrap(), &examples(), &wild, &watch).unwrap();
    let Made::FineTuned { fit, .. } = classifier.made() else { panic!("{:?}", classifier.made()) };
    let start = heads.into_inner().into_iter().min_by(|a, b| a.log_loss.total_cmp(&b.log_loss)).unwrap();
    let kept = fit.validation.unwrap();
    assert!(kept.accuracy > start.accuracy || (kept.accuracy == start.accuracy && kept.log_loss <= start.log_loss));
}

#[test]
fn a_stop_ends_a_training_between_two_steps() {
    let _turn = turn();
    let folder = tiny_folder();
    let steps = RefCell::new(0);
    let report = |progress: Progress| *steps.borrow_mut() += u32::from(progress.step == "fine-tune");
    let stop = || *steps.borrow() > 1;
    let watch = Watch { report: &report, stop: &stop };
    let open = || Encoder::open(folder.path()).unwrap();
    assert!(matches!(Classifier::fine_tune(open(), &examples(), &quick(), &watch), Err(Error::Cancelled)));
    let watch = Watch { report: &|_| {}, stop: &|| true };
    assert!(matches!(Classifier::fit_frozen(open(), &examples(), &Frozen::default(), &watch), Err(Error::Cancelled)));
}

#[test]
fn one_label_is_nothing_to_learn() {
    let folder = tiny_folder();
    let encoder = Encoder::open(folder.path()).unwrap();
    let one = [Example { text: "card", label: "card" }];
    let failed = Classifier::fit_frozen(encoder, &one, &Frozen::default(), &UNWATCHED);
    assert!(matches!(failed, Err(Error::CannotTrain { reason }) if reason.contains("1 label")));
}

#[test]
fn a_recipe_that_cannot_be_followed_is_refused_before_anything_is_trained() {
    let folder = tiny_folder();
    for recipe in [
        FineTune { epochs: 0, ..quick() },
        FineTune { dropout: 1.0, ..quick() },
        FineTune { learning_rate: f64::NAN, ..quick() },
        FineTune { l2: Vec::new(), ..quick() },
    ] {
        let encoder = Encoder::open(folder.path()).unwrap();
        let failed = Classifier::fine_tune(encoder, &examples(), &recipe, &UNWATCHED);
        assert!(matches!(failed, Err(Error::CannotTrain { .. })), "{recipe:?}");
    }
}

#[test]
fn a_head_that_does_not_fit_its_labels_is_refused() {
    let folder = tiny_folder();
    let parent = tempfile::tempdir().unwrap();
    let saved = parent.path().join("saved");
    frozen(folder.path()).save(&saved).unwrap();
    let card = saved.join("classifier.json");
    let text = fs::read_to_string(&card).unwrap();
    fs::write(&card, text.replacen(r#""transfer""#, r#""transfer", "more""#, 1)).unwrap();
    assert!(matches!(Classifier::open(&saved), Err(Error::Shape { name, .. }) if name == "weight"));
}

#[test]
fn a_label_that_was_never_learned_counts_as_missed() {
    let folder = tiny_folder();
    let strange = [Example { text: "card", label: "card" }, Example { text: "card", label: "strange" }];
    let quality = frozen(folder.path()).quality(&strange).unwrap().unwrap();
    assert_eq!(quality.accuracy, 0.5);
}

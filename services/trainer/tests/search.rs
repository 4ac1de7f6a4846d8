//! Whole searches with a made-up objective, crashes included.

#![allow(clippy::unwrap_used)]

use std::{
    cell::{Cell, RefCell},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rapport_trainer::search::{Ended, JournalError, Outcome, Score, SearchError, Settings, Space, Trial, Verdict, run};

const SUBJECT: &str = "made up";
/// Minutes that a trial with the full budget takes on the clock of these tests.
const FULL: f64 = 9.0;

fn space() -> Space {
    let text = r#"{
        "learning_rate": {"draw": "log_uniform", "low": 1e-5, "high": 1.0},
        "dropout": {"draw": "uniform", "low": 0.0, "high": 0.9},
        "blocks": {"draw": "integer", "low": 1, "high": 6},
        "decay": {"draw": "choice", "values": ["linear", "cosine"]}
    }"#;
    serde_json::from_str(text).unwrap()
}

fn settings() -> Settings {
    Settings { seed: 7, trials: 81, eta: 3, min_budget: 1.0, max_budget: 27.0, total_minutes: 1e6 }
}

/// 1 at a learning rate of .01, dropout .2, three blocks and cosine, and less elsewhere. A small budget
/// sees it through noise that follows from the trial.
fn quality(trial: &Trial) -> f64 {
    let number = |field: &str| trial.values[field].as_f64().unwrap();
    let rate = (number("learning_rate").log10() + 2.0) / 5.0;
    let dropout = number("dropout") - 0.2;
    let blocks = (number("blocks") - 3.0) / 6.0;
    let decay = if trial.values["decay"] == "cosine" { 0.0 } else { 0.1 };
    let noise = (f64::from(trial.id) * 12.9898).sin() * 0.05 * (1.0 - trial.budget_share);
    1.0 - rate * rate - dropout * dropout - blocks * blocks - decay + noise
}

/// A journal in a folder of its own, and a clock that moves only while a trial runs.
struct Bench {
    folder: tempfile::TempDir,
    now: Cell<Duration>,
    ran: RefCell<Vec<(u32, usize)>>,
}

/// What the process dies of in these tests.
struct Crash;

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), now: Cell::default(), ran: RefCell::default() }
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("search.jsonl")
    }

    fn evaluate(&self, trial: &Trial) -> Result<Score, String> {
        self.ran.borrow_mut().push((trial.id, trial.rung));
        self.now.set(self.now.get() + Duration::from_secs_f64(60.0 * FULL * trial.budget_share));
        if trial.id % 10 == 4 { Err(format!("trial {} diverged", trial.id)) } else { Ok(Score(quality(trial))) }
    }

    fn search(&self, space: &Space, settings: &Settings) -> Result<Outcome, SearchError> {
        run(space, settings, SUBJECT, &self.journal(), &|| self.now.get(), &|| false, &mut |trial| self.evaluate(trial))
    }

    /// A search whose process dies inside its trial number `after`, counted from 0.
    fn search_that_dies(&self, after: usize) {
        let begin = self.ran.borrow().len();
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run(&space(), &settings(), SUBJECT, &self.journal(), &|| self.now.get(), &|| false, &mut |trial| {
                if self.ran.borrow().len() - begin == after {
                    std::panic::resume_unwind(Box::new(Crash));
                }
                self.evaluate(trial)
            })
        }));
        assert!(died.is_err(), "the search ended before it could die");
    }
}

fn append(path: &Path, bytes: &[u8]) {
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn a_search_comes_near_the_optimum_and_spends_its_budget_on_the_promising() {
    let bench = Bench::new();
    let outcome = bench.search(&space(), &settings()).unwrap();
    let best = outcome.best.clone().unwrap();
    assert_eq!((outcome.ended, best.trial.rung, best.trial.budget_share), (Ended::Done, 3, 1.0));
    assert!(best.score().unwrap() > 0.93, "{best:?}");
    let by_rung: Vec<usize> =
        (0..4).map(|rung| outcome.trials.iter().filter(|t| t.trial.rung == rung).count()).collect();
    assert_eq!(by_rung, [81, 27, 9, 3]);
    let everything = 81.0 * FULL;
    assert!(outcome.minutes < everything / 5.0, "{} of {everything} minutes", outcome.minutes);
}

#[test]
fn a_failing_trial_is_recorded_with_its_reason_and_does_not_end_the_search() {
    let outcome = Bench::new().search(&space(), &settings()).unwrap();
    let failed: Vec<_> = outcome.trials.iter().filter(|trial| trial.score().is_none()).collect();
    assert_eq!(failed.len(), 8);
    assert_eq!(failed[0].verdict, Verdict::Failed("trial 4 diverged".into()));
    assert!(failed.iter().all(|trial| trial.trial.rung == 0), "a failure was promoted");
}

#[test]
fn a_score_that_is_no_number_counts_as_a_failure() {
    let bench = Bench::new();
    let mut worthless = |_: &Trial| Ok::<_, String>(Score(f64::NAN));
    let outcome =
        run(&space(), &settings(), SUBJECT, &bench.journal(), &|| Duration::ZERO, &|| false, &mut worthless).unwrap();
    assert_eq!((outcome.ended, outcome.best, outcome.trials.len()), (Ended::Done, None, 81));
    assert_eq!(outcome.trials[0].verdict, Verdict::Failed("its score NaN is not a finite number".into()));
}

#[test]
fn a_search_that_crashed_again_and_again_ends_as_if_it_never_had() {
    let undisturbed = Bench::new().search(&space(), &settings()).unwrap();
    let bench = Bench::new();
    for after in [0, 5, 40, 50, 3, 12, 0, 8] {
        bench.search_that_dies(after);
        // What a crash in the middle of a write leaves behind.
        append(&bench.journal(), br#"{"id":80,"rung":0,"budget_sh"#);
    }
    assert_eq!(bench.search(&space(), &settings()).unwrap(), undisturbed);
    let ran = bench.ran.borrow();
    assert_eq!(ran.len(), undisturbed.trials.len(), "a trial ran twice");
}

#[test]
fn a_finished_search_is_told_again_without_a_trial() {
    let bench = Bench::new();
    let first = bench.search(&space(), &settings()).unwrap();
    let ran = bench.ran.borrow().len();
    assert_eq!(bench.search(&space(), &settings()).unwrap(), first);
    assert_eq!(bench.ran.borrow().len(), ran);
}

#[test]
fn the_budget_of_minutes_ends_a_search_and_a_larger_one_takes_it_on() {
    let undisturbed = Bench::new().search(&space(), &settings()).unwrap();
    let bench = Bench::new();
    let short = bench.search(&space(), &Settings { total_minutes: 10.0, ..settings() }).unwrap();
    // A trial of the lowest rung takes a third of a minute.
    assert_eq!((short.ended, short.trials.len()), (Ended::Budget, 30));
    assert!(short.minutes >= 10.0 && short.best.is_some());
    let again = bench.search(&space(), &Settings { total_minutes: 10.0, ..settings() }).unwrap();
    assert_eq!((again.ended, again.trials), (Ended::Budget, short.trials));
    assert_eq!(bench.search(&space(), &settings()).unwrap(), undisturbed);
}

#[test]
fn a_search_that_is_asked_to_stop_does_so_and_does_not_blame_the_trial_that_gave_way() {
    let bench = Bench::new();
    let undisturbed = Bench::new().search(&space(), &settings()).unwrap();
    let asked = Cell::new(false);
    let outcome =
        run(&space(), &settings(), SUBJECT, &bench.journal(), &|| bench.now.get(), &|| asked.get(), &mut |trial| {
            if bench.ran.borrow().len() == 10 {
                asked.set(true);
                return Err("cancelled".to_string());
            }
            bench.evaluate(trial)
        });
    let outcome = outcome.unwrap();
    assert_eq!((outcome.ended, outcome.trials.len()), (Ended::Stopped, 10));
    assert_eq!(bench.search(&space(), &settings()).unwrap(), undisturbed);
}

#[test]
fn a_last_trial_that_succeeds_counts_even_when_the_search_is_asked_to_stop() {
    let bench = Bench::new();
    let asked = Cell::new(false);
    let outcome =
        run(&space(), &settings(), SUBJECT, &bench.journal(), &|| bench.now.get(), &|| asked.get(), &mut |trial| {
            asked.set(true);
            bench.evaluate(trial)
        });
    let outcome = outcome.unwrap();
    assert_eq!((outcome.ended, outcome.trials.len()), (Ended::Stopped, 1));
}

#[test]
fn the_journal_of_another_search_is_refused_with_what_differs() {
    let bench = Bench::new();
    bench.search(&space(), &settings()).unwrap();
    let before = std::fs::read(bench.journal()).unwrap();
    let other_space: Space = serde_json::from_str(r#"{"x": {"draw": "integer", "low": 1, "high": 6}}"#).unwrap();
    for (space, settings, differs) in [
        (space(), Settings { seed: 8, ..settings() }, "another seed"),
        (space(), Settings { trials: 80, ..settings() }, "another number of trials"),
        (space(), Settings { eta: 2, ..settings() }, "another eta"),
        (space(), Settings { max_budget: 30.0, ..settings() }, "another max_budget"),
        (other_space, settings(), "another space"),
    ] {
        let error = bench.search(&space, &settings).unwrap_err().to_string();
        assert!(error.contains(differs), "{error}");
    }
    assert_eq!(std::fs::read(bench.journal()).unwrap(), before);
}

#[test]
fn a_file_that_is_no_journal_is_left_as_it_is() {
    for text in ["# notes\nof mine\n", "notes without an end"] {
        let bench = Bench::new();
        std::fs::write(bench.journal(), text).unwrap();
        let error = bench.search(&space(), &settings()).unwrap_err();
        assert!(matches!(error, SearchError::Journal(JournalError::NotAJournal { .. })), "{error}");
        assert_eq!(std::fs::read_to_string(bench.journal()).unwrap(), text);
    }
}

#[test]
fn a_journal_whose_very_first_line_was_torn_begins_anew() {
    let undisturbed = Bench::new();
    let expected = undisturbed.search(&space(), &settings()).unwrap();
    let whole = std::fs::read(undisturbed.journal()).unwrap();
    for length in [0, 1, 20] {
        let bench = Bench::new();
        std::fs::write(bench.journal(), &whole[..length]).unwrap();
        assert_eq!(bench.search(&space(), &settings()).unwrap(), expected);
        assert_eq!(std::fs::read(bench.journal()).unwrap(), whole);
    }
}

#[test]
fn a_journal_torn_anywhere_is_taken_on_and_comes_out_the_same() {
    let undisturbed = Bench::new();
    let expected = undisturbed.search(&space(), &settings()).unwrap();
    let whole = std::fs::read(undisturbed.journal()).unwrap();
    let header = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    for length in (header..whole.len()).step_by(701) {
        let bench = Bench::new();
        std::fs::write(bench.journal(), &whole[..length]).unwrap();
        assert_eq!(bench.search(&space(), &settings()).unwrap(), expected, "torn after {length} bytes");
        assert_eq!(std::fs::read(bench.journal()).unwrap(), whole, "torn after {length} bytes");
    }
}

#[test]
fn a_broken_line_inside_the_journal_is_named_and_nothing_is_lost() {
    let bench = Bench::new();
    bench.search(&space(), &Settings { total_minutes: 1.0, ..settings() }).unwrap();
    append(&bench.journal(), b"{\"id\":\n");
    let before = std::fs::read(bench.journal()).unwrap();
    let error = bench.search(&space(), &settings()).unwrap_err().to_string();
    assert!(error.starts_with("line 5 of "), "{error}");
    assert_eq!(std::fs::read(bench.journal()).unwrap(), before);
}

#[test]
fn a_trial_that_this_search_never_drew_or_that_stands_there_twice_is_refused() {
    let bench = Bench::new();
    bench.search(&space(), &Settings { total_minutes: 1.0, ..settings() }).unwrap();
    let text = std::fs::read_to_string(bench.journal()).unwrap();
    let first = text.lines().nth(1).unwrap();

    std::fs::write(bench.journal(), format!("{text}{first}\n")).unwrap();
    let error = bench.search(&space(), &settings()).unwrap_err().to_string();
    assert_eq!(error, "line 5 of the journal: trial 0 of rung 0 stands in line 2 already");

    std::fs::write(bench.journal(), format!("{text}{}\n", first.replace("\"id\":0", "\"id\":9"))).unwrap();
    let error = bench.search(&space(), &settings()).unwrap_err().to_string();
    assert_eq!(error, "line 5 of the journal: trial 9 of rung 0 is not one that this search would have drawn");
}

#[test]
fn two_searches_cannot_share_a_journal() {
    let bench = Bench::new();
    let inner = RefCell::new(None);
    let one = Settings { trials: 1, ..settings() };
    run(&space(), &one, SUBJECT, &bench.journal(), &|| Duration::ZERO, &|| false, &mut |trial| {
        *inner.borrow_mut() = Some(bench.search(&space(), &one).unwrap_err());
        Ok::<_, String>(Score(quality(trial)))
    })
    .unwrap();
    let error = inner.into_inner().unwrap();
    assert!(matches!(error, SearchError::Journal(JournalError::InUse { .. })), "{error}");
}

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use prost::Message as _;
use rapport_proto::events::Event;
use rapport_shapes::mapping::Mapping;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::{
    blocking::on_thread,
    commands::right,
    context::Context,
    error::Usage,
    import::{Book, Counts, FileIdentity, Page, Recipe, RejectedFile, Shape, State},
    lane::{self, Batch, Lane, Via},
    original::event_json,
    output::{self, Progress, per_second, thousands},
    rows::{self, Delimited, Extent, Format, Rows},
};

pub const AFTER_HELP: &str = "\
A second run goes on where the first one ended: beside the file stands FILE.import.json with the last row before which \
everything is acknowledged. Events get ids made of the file's content and the row's number (unless the mapping gives \
them), so what is sent twice is a duplicate, not a second event. Rows that are wrong go to FILE.rejected.ndjson with \
their number and the reason, and the import goes on; the exit code is then 1, unless --max-rejected allows as many.

  rapportctl import events orders.csv.gz --mapping orders.yaml --dry-run
  rapportctl import events orders.csv.gz --mapping orders.yaml
  rapportctl import events events.ndjson --via kafka";

/// Events of one page, and so of one request on the collector's stream.
const PAGE_EVENTS: usize = 500;
/// Bytes of one page's events: below what a gRPC message may have.
const PAGE_BYTES: usize = 1 << 20;
/// Rows of one page, where they stand for few events.
const PAGE_ROWS: u64 = 2_000;
/// Pages that are read ahead.
const PAGES_AHEAD: usize = 2;
/// How much is done again at most after a crash, beside what is on its way.
const STATE_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// When so many rows were rejected and none was taken, the mapping is wrong and not the rows.
const HOPELESS: u64 = 1_000;
/// Rows of a dry run.
const DRY_ROWS: u64 = 10;

#[derive(Debug, Args)]
pub struct Events {
    /// CSV, NDJSON or Parquet; .gz and .zst are inflated (not of Parquet)
    file: PathBuf,
    /// How rows become events, in YAML; without one, each line of NDJSON is an event already
    #[arg(long, short = 'm', value_name = "YAML")]
    mapping: Option<PathBuf>,
    /// What the file is made of [default: what its name says]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Between two cells of CSV: a character, or tab [default: a comma; of .tsv a tab]
    #[arg(long, value_name = "CHAR", value_parser = Delimited::character)]
    delimiter: Option<u8>,
    /// Around a cell of CSV that holds delimiters
    #[arg(long, value_name = "CHAR", default_value = "\"", value_parser = Delimited::character)]
    quote: u8,
    /// Names of CSV's columns, instead of those in its header
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    columns: Option<Vec<String>>,
    /// CSV without a header: its first row is data
    #[arg(long, requires = "columns")]
    no_header: bool,
    /// Which way the events go
    #[arg(long, value_enum, default_value_t = Via::Grpc)]
    via: Via,
    /// At most so many rows in this run; another run goes on behind them
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Show the events of the first rows (10, or --limit) and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Stop when more rows than this are rejected; up to it, the exit code is 0
    #[arg(long, value_name = "ROWS")]
    max_rejected: Option<u64>,
    /// Where this import keeps its place [default: FILE.import.json]
    #[arg(long, value_name = "PATH")]
    state: Option<PathBuf>,
    /// Where rejected rows go [default: FILE.rejected.ndjson]
    #[arg(long, value_name = "PATH")]
    rejected: Option<PathBuf>,
    /// From the beginning, whatever an earlier run has done
    #[arg(long)]
    restart: bool,
    /// How long to go on without any acknowledgement
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration)]
    patience: Duration,
}

/// Why an import stops before the end of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Interrupted,
    TooManyRejected(u64),
    Hopeless,
}

impl Events {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let format = match self.format {
            Some(format) => format,
            None => Format::of(&self.file)?,
        };
        let delimited = self.delimited();
        let (shape, mapping_text) = self.shape(format)?;
        if self.dry_run {
            return self.dry_run(context, format, &delimited, shape);
        }
        let state_path = self.state.clone().unwrap_or_else(|| beside(&self.file, ".import.json"));
        let rejected_path = self.rejected.clone().unwrap_or_else(|| beside(&self.file, ".rejected.ndjson"));
        let recipe_hash = recipe_hash(&mapping_text, format, &delimited);
        let state = self.state(&state_path, &recipe_hash).await?;
        if state.complete {
            let done = format!("every row of {} was imported before", self.file.display());
            report(context, &state, &rejected_path, Duration::ZERO, 0, Some(&done));
            return self.verdict(&state, None, &rejected_path);
        }
        // Before anything is sent: a folder that cannot be written to is told now.
        state.write(&state_path)?;
        if state.done_row > 0 {
            context.output.note(format!("going on after row {}", thousands(state.done_row)));
        }
        let (rows, extent) = rows::open(&self.file, format, &delimited, state.done_row)?;
        let recipe = Recipe::new(shape, &state.file.sha256);
        let rejected = RejectedFile::open(&rejected_path, state.rejected_bytes)?;
        let keeper = Keeper::new(state, state_path, rejected, extent, self.max_rejected);
        let started = Instant::now();
        let (state, stop, again) = self.transfer(context, rows, recipe, keeper).await?;
        report(context, &state, &rejected_path, started.elapsed(), again, None);
        self.verdict(&state, stop, &rejected_path)
    }

    fn delimited(&self) -> Delimited {
        let name = self.file.to_string_lossy().to_ascii_lowercase();
        let tabs = [".tsv", ".tsv.gz", ".tsv.zst", ".tab"].iter().any(|ending| name.ends_with(ending));
        Delimited {
            delimiter: self.delimiter.unwrap_or(if tabs { b'\t' } else { b',' }),
            quote: self.quote,
            header: !self.no_header,
            columns: self.columns.clone(),
        }
    }

    fn shape(&self, format: Format) -> anyhow::Result<(Shape, String)> {
        let Some(path) = &self.mapping else {
            if format != Format::Ndjson {
                let what = if format == Format::Csv { "CSV" } else { "Parquet" };
                return Err(Usage(format!("rows of {what} need a mapping; try: --mapping FILE.yaml")).into());
            }
            return Ok((Shape::Bulk, String::new()));
        };
        let text = fs::read_to_string(path).with_context(|| format!("cannot read the mapping {}", path.display()))?;
        let mapping = Mapping::from_yaml(&text).map_err(|error| Usage(format!("{}: {error}", path.display())))?;
        Ok((Shape::Mapped(Box::new(mapping)), text))
    }

    /// The state of an earlier run, or a new one.
    async fn state(&self, path: &Path, recipe: &str) -> anyhow::Result<State> {
        let earlier = if self.restart { None } else { State::read(path)? };
        let (file, known) = (self.file.clone(), earlier.as_ref().map(|state| state.file.clone()));
        let identity = on_thread("identity", move || {
            FileIdentity::of(&file, known.as_ref(), |bytes| {
                let progress = Progress::share("reading", bytes, "bytes");
                let hash = rows::sha256(&file, |done| progress.say(done, "for the events' ids".to_owned()));
                progress.clear();
                hash
            })
        })
        .await?;
        match earlier {
            Some(mut state) => {
                state.check(&identity, recipe, path)?;
                state.file = identity;
                Ok(state)
            }
            None => Ok(State::new(identity, recipe.to_owned())),
        }
    }

    fn dry_run(&self, context: &Context, format: Format, delimited: &Delimited, shape: Shape) -> anyhow::Result<()> {
        let (rows, _) = rows::open(&self.file, format, delimited, 0)?;
        // Ids of a dry run show the form, not the file's hash, which would take reading all of it.
        let recipe = Recipe::new(shape, "FILE");
        let (mut page, mut events) = (Page::default(), Vec::new());
        let most = usize::try_from(self.limit.unwrap_or(DRY_ROWS)).unwrap_or(usize::MAX);
        for row in rows.take(most) {
            recipe.cook(row?, &mut page, &mut events);
        }
        let counts = page.counts();
        context.output.answer(
            || {
                json!({
                    "rows": counts.rows, "passed_over": counts.passed_over,
                    "events": events.iter().map(event_json).collect::<Vec<_>>(),
                    "rejected": page.rejected.iter().map(|r| r.line()).map(|line| serde_json::from_str(&line).unwrap_or(Value::Null)).collect::<Vec<_>>(),
                })
            },
            |out| {
                for event in &events {
                    out.line(event_json(event).to_string());
                }
                for rejection in &page.rejected {
                    out.line(format!("rejected: {}", rejection.line().trim_end()));
                }
                out.line(format!(
                    "{} rows: {} events, {} rows stand for none, {} rejected; nothing was sent",
                    thousands(counts.rows),
                    thousands(counts.events),
                    thousands(counts.passed_over),
                    thousands(counts.rejected)
                ));
            },
        );
        Ok(())
    }

    /// Sends everything; returns what was done, what stopped it, and how many events were sent again.
    async fn transfer(
        &self,
        context: &Context,
        rows: Rows,
        recipe: Recipe,
        mut keeper: Keeper,
    ) -> anyhow::Result<(State, Option<Stop>, u64)> {
        let mut lanes = lane::open(context, self.via, self.patience)?;
        let tallies: Vec<_> = lanes.iter().map(|lane| std::sync::Arc::clone(&lane.tally)).collect();
        let (pages, waiting) = mpsc::channel(PAGES_AHEAD);
        let limit = self.limit.unwrap_or(u64::MAX);
        let reader = tokio::spawn(on_thread("rows", move || read(rows, &recipe, limit, &pages)));

        let sent = send(&mut keeper, &mut lanes, waiting).await;
        let stop = match sent {
            Ok(None) => finish(&mut keeper, lanes).await.map_err(|error| keeper.kept(error))?,
            Ok(stop) => {
                drop(lanes);
                stop
            }
            Err(error) => return Err(keeper.kept(error)),
        };
        // The reader has ended: its channel is closed from one of the two sides.
        let whole = match reader.await.context("the reader died")? {
            Ok(whole) => whole,
            Err(error) => return Err(keeper.kept(error.context(format!("{}", self.file.display())))),
        };
        keeper.state.complete = whole && stop.is_none();
        keeper.keep(true)?;
        keeper.progress.clear();
        Ok((keeper.state, stop, tallies.iter().map(|tally| tally.again()).sum()))
    }

    /// # Errors
    /// It did not come to its end, or rejected more than it may.
    fn verdict(&self, state: &State, stop: Option<Stop>, rejected: &Path) -> anyhow::Result<()> {
        let (rejected, done) = (rejected.display(), thousands(state.done_row));
        match stop {
            Some(Stop::Interrupted) => bail!("interrupted after row {done}; run it again to go on"),
            Some(Stop::TooManyRejected(most)) => bail!(
                "more than {} rows were rejected, see {rejected}; mend the mapping and begin anew with --restart, or \
                 run it again with a higher --max-rejected to go on",
                thousands(most)
            ),
            Some(Stop::Hopeless) => bail!(
                "all of the first {done} rows were rejected, so the mapping seems to be wrong: see {rejected}, try \
                 --dry-run, and begin anew with --restart"
            ),
            None if state.counts.rejected > self.max_rejected.unwrap_or(0) => {
                bail!("{} rows were rejected, see {rejected}", thousands(state.counts.rejected))
            }
            None => Ok(()),
        }
    }
}

/// Reads rows into pages until the file or the limit ends, or nobody wants more. True at the file's
/// end.
fn read(rows: Rows, recipe: &Recipe, limit: u64, pages: &mpsc::Sender<(Page, Vec<Event>)>) -> anyhow::Result<bool> {
    let mut rows = rows;
    let (mut page, mut events, mut bytes) = (Page::default(), Vec::with_capacity(PAGE_EVENTS), 0);
    let mut left = limit;
    loop {
        let row = if left == 0 { None } else { rows.next() };
        let whole = row.is_none();
        if let Some(Ok(row)) = row {
            left -= 1;
            let before = events.len();
            recipe.cook(row, &mut page, &mut events);
            bytes += events[before..].iter().map(Event::encoded_len).sum::<usize>();
            if events.len() < PAGE_EVENTS && bytes < PAGE_BYTES && page.rows < PAGE_ROWS {
                continue;
            }
            let next = (std::mem::take(&mut page), std::mem::replace(&mut events, Vec::with_capacity(PAGE_EVENTS)));
            bytes = 0;
            if pages.blocking_send(next).is_err() {
                return Ok(false);
            }
            continue;
        }
        if page.rows > 0 && pages.blocking_send((page, events)).is_err() {
            return Ok(false);
        }
        return match row {
            Some(Err(error)) => Err(error),
            _ => Ok(whole && left > 0),
        };
    }
}

/// Hands every page to the lanes in turn.
async fn send(
    keeper: &mut Keeper,
    lanes: &mut [Lane],
    mut pages: mpsc::Receiver<(Page, Vec<Event>)>,
) -> anyhow::Result<Option<Stop>> {
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut turn = 0;
    loop {
        let next = tokio::select! {
            next = pages.recv() => Some(next),
            () = tokio::time::sleep(LOOK_EVERY) => None,
            _ = &mut interrupted => return Ok(Some(Stop::Interrupted)),
        };
        match next {
            Some(None) => return Ok(None),
            Some(Some((page, events))) => {
                let receipt = keeper.book.open(page);
                if !events.is_empty() {
                    let batch = Batch { events, since: Instant::now(), receipt: Some(receipt) };
                    tokio::select! {
                        sent = lanes[turn].send(batch) => sent?,
                        _ = &mut interrupted => return Ok(Some(Stop::Interrupted)),
                    }
                    turn = (turn + 1) % lanes.len();
                }
            }
            None => {}
        }
        if let Some(stop) = keeper.keep(false)? {
            return Ok(Some(stop));
        }
    }
}

/// Waits for the last acknowledgements.
async fn finish(keeper: &mut Keeper, lanes: Vec<Lane>) -> anyhow::Result<Option<Stop>> {
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    for lane in lanes {
        let mut finish = std::pin::pin!(lane.finish());
        loop {
            tokio::select! {
                result = &mut finish => {
                    result?;
                    break;
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = &mut interrupted => return Ok(Some(Stop::Interrupted)),
            }
            keeper.keep(false)?;
        }
    }
    keeper.keep(true)
}

/// Keeps the place: takes finished pages down, in order, and writes the state now and then.
struct Keeper {
    book: Book,
    state: State,
    state_path: PathBuf,
    rejected: RejectedFile,
    written: Instant,
    max_rejected: Option<u64>,
    extent: Extent,
    from: u64,
    rows_before: u64,
    started: Instant,
    progress: Progress,
}

impl Keeper {
    fn new(
        state: State,
        state_path: PathBuf,
        rejected: RejectedFile,
        extent: Extent,
        max_rejected: Option<u64>,
    ) -> Self {
        Self {
            book: Book::default(),
            rows_before: state.counts.rows,
            state,
            state_path,
            rejected,
            written: Instant::now(),
            max_rejected,
            from: extent.done.load(Ordering::Relaxed),
            progress: Progress::share("import", extent.total, "rows"),
            extent,
            started: Instant::now(),
        }
    }

    /// `now`: write the state, whenever that was done last.
    fn keep(&mut self, now: bool) -> anyhow::Result<Option<Stop>> {
        for page in self.book.take_done() {
            for rejection in &page.rejected {
                self.rejected.write(rejection)?;
            }
            self.state.counts += page.counts();
            self.state.done_row = page.last_row;
        }
        let stop = stop(&self.state.counts, self.max_rejected);
        if now || stop.is_some() || self.written.elapsed() >= STATE_EVERY {
            self.state.rejected_bytes = self.rejected.sync()?;
            self.state.write(&self.state_path)?;
            self.written = Instant::now();
        }
        self.show();
        Ok(stop)
    }

    fn show(&self) {
        let counts = &self.state.counts;
        let done = self.extent.done.load(Ordering::Relaxed);
        let rate = per_second(counts.rows - self.rows_before, self.started.elapsed());
        let left = self.progress.time_left(self.from, done);
        let left = left.map_or(String::new(), |left| format!(", {} left", output::human(left)));
        let rejected =
            if counts.rejected == 0 { String::new() } else { format!(", {} rejected", thousands(counts.rejected)) };
        self.progress.say(done, format!("{} rows, {}/s{rejected}{left}", thousands(counts.rows), thousands(rate)));
    }

    /// An error that ends the import, with where it goes on.
    fn kept(&mut self, error: anyhow::Error) -> anyhow::Error {
        self.progress.clear();
        let place = match self.keep(true) {
            Ok(_) => {
                format!("row {} and all before it are done; run it again to go on", thousands(self.state.done_row))
            }
            Err(second) => format!("and the place could not be kept: {second:#}"),
        };
        error.context(place)
    }
}

fn stop(counts: &Counts, max_rejected: Option<u64>) -> Option<Stop> {
    match max_rejected {
        Some(most) if counts.rejected > most => Some(Stop::TooManyRejected(most)),
        None if counts.rejected >= HOPELESS && counts.events == 0 && counts.passed_over == 0 => Some(Stop::Hopeless),
        _ => None,
    }
}

/// `FILE` with something behind its name.
fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// SHA-256 of everything that decides what a row becomes.
fn recipe_hash(mapping: &str, format: Format, delimited: &Delimited) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{format:?} {delimited:?}\n"));
    digest.update(mapping);
    hex::encode(digest.finalize())
}

fn report(context: &Context, state: &State, rejected: &Path, took: Duration, again: u64, remark: Option<&str>) {
    let counts = &state.counts;
    context.output.answer(
        || {
            json!({
                "rows": counts.rows, "passed_over": counts.passed_over, "events": counts.events,
                "acknowledged": counts.acknowledged, "rejected": counts.rejected, "sent_again": again,
                "done_row": state.done_row, "complete": state.complete, "seconds": took.as_secs_f64(),
                "rejected_file": (counts.rejected > 0).then(|| rejected.display().to_string()),
                "file_sha256": state.file.sha256,
            })
        },
        |page| {
            if let Some(remark) = remark {
                page.line(remark);
            }
            let mut table = output::table(["what", "count"]);
            for (what, count) in [
                ("rows read", counts.rows),
                ("rows that stand for no event", counts.passed_over),
                ("events", counts.events),
                ("acknowledged", counts.acknowledged),
                ("rejected", counts.rejected),
                ("sent again", again),
            ] {
                table.add_row(vec![comfy_table::Cell::new(what), right(thousands(count))]);
            }
            page.table(&table);
            if counts.rejected > 0 {
                page.line(format!("rejected rows, with reasons: {}", rejected.display()));
            }
            page.line("which of them the cleaner had before it tells itself: rapportctl account");
            if took > Duration::ZERO {
                page.line(format!("took {}", output::human(took)));
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::rows::{Body, Row};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        events: Events,
    }

    fn parsed(arguments: &[&str]) -> Events {
        Line::try_parse_from([&["x"], arguments].concat()).unwrap().events
    }

    #[test]
    fn a_tsv_is_split_at_tabs_unless_told() {
        assert_eq!(parsed(&["a.tsv.gz"]).delimited().delimiter, b'\t');
        assert_eq!(parsed(&["a.tsv", "--delimiter", ";"]).delimited().delimiter, b';');
        assert_eq!(parsed(&["a.csv"]).delimited().delimiter, b',');
        assert!(Line::try_parse_from(["x", "a.csv", "--delimiter", "::"]).is_err());
        assert!(Line::try_parse_from(["x", "a.csv", "--no-header"]).is_err(), "then columns must be named");
    }

    #[test]
    fn csv_without_a_mapping_is_refused_and_says_what_to_give() {
        let error = parsed(&["a.csv"]).shape(Format::Csv).err().unwrap();
        assert!(error.to_string().contains("--mapping"), "{error}");
        assert!(parsed(&["a.ndjson"]).shape(Format::Ndjson).is_ok());
    }

    #[test]
    fn another_mapping_or_another_delimiter_is_another_recipe() {
        let how = parsed(&["a.csv"]).delimited();
        let first = recipe_hash("a: 1", Format::Csv, &how);
        assert_eq!(first, recipe_hash("a: 1", Format::Csv, &how));
        assert_ne!(first, recipe_hash("a: 2", Format::Csv, &how));
        assert_ne!(first, recipe_hash("a: 1", Format::Csv, &Delimited { delimiter: b';', ..how }));
    }

    #[test]
    fn a_run_stops_when_more_is_rejected_than_allowed_or_when_nothing_fits() {
        let counts = |events, rejected| Counts { rows: events + rejected, events, rejected, ..Counts::default() };
        assert_eq!(stop(&counts(5, 1_000_000), None), None);
        assert_eq!(stop(&counts(0, HOPELESS), None), Some(Stop::Hopeless));
        assert_eq!(stop(&counts(5, 3), Some(2)), Some(Stop::TooManyRejected(2)));
        assert_eq!(stop(&counts(5, 2), Some(2)), None);
    }

    #[test]
    fn reading_ends_with_the_limit_the_file_or_the_reader() {
        let rows = |count: u64| -> Rows {
            Box::new((1..=count).map(|number| Ok(Row { number, body: Ok(Body::Line(b"not json".to_vec())) })))
        };
        let run = |count, limit| {
            let (pages, mut waiting) = mpsc::channel(100);
            let whole = read(rows(count), &Recipe::new(Shape::Bulk, "h"), limit, &pages).unwrap();
            drop(pages);
            let mut last = 0;
            while let Ok((page, _)) = waiting.try_recv() {
                last = page.last_row;
            }
            (whole, last)
        };
        assert_eq!(run(5_000, u64::MAX), (true, 5_000));
        assert_eq!(run(5_000, 4_100), (false, 4_100));
        let (pages, waiting) = mpsc::channel(1);
        drop(waiting);
        assert!(!read(rows(5_000), &Recipe::new(Shape::Bulk, "h"), u64::MAX, &pages).unwrap());
    }

    #[test]
    fn rows_before_a_fault_in_the_file_are_sent() {
        let rows: Rows = Box::new(
            [Ok(Row { number: 1, body: Ok(Body::Line(b"x".to_vec())) }), Err(anyhow::anyhow!("broken"))].into_iter(),
        );
        let (pages, mut waiting) = mpsc::channel(2);
        let result = read(rows, &Recipe::new(Shape::Bulk, "h"), u64::MAX, &pages);
        assert_eq!(result.unwrap_err().to_string(), "broken");
        assert_eq!(waiting.try_recv().unwrap().0.last_row, 1);
    }
}

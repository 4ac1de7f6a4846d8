use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use rapport_shapes::mapping::Mapping;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    blocking::on_thread,
    commands::right,
    context::Context,
    error::Usage,
    import::{FileIdentity, Keeper, Page, Recipe, RejectedFile, Shape, State, Stop, Way, transfer},
    lane::Via,
    original::event_json,
    output::{self, Progress, thousands},
    rows::{self, Delimited, Format},
};

pub const AFTER_HELP: &str = "\
A second run goes on where the first one ended: beside the file stands FILE.import.json with the last row before which \
everything is acknowledged. Events get ids made of the file's content and the row's number (unless the mapping gives \
them), so what is sent twice is a duplicate, not a second event. Rows that are wrong go to FILE.rejected.ndjson with \
their number and the reason, and the import goes on; the exit code is then 1, unless --max-rejected allows as many.

  rapportctl import events orders.csv.gz --mapping orders.yaml --dry-run
  rapportctl import events orders.csv.gz --mapping orders.yaml
  rapportctl import events events.ndjson --via kafka";

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
        let way = Way { via: self.via, patience: self.patience, limit: self.limit.unwrap_or(u64::MAX) };
        let keeper = Keeper::new(state, state_path, rejected, extent, self.max_rejected);
        let started = Instant::now();
        let (state, stop, again) =
            transfer(context, &way, rows, recipe, keeper).await.with_context(|| self.file.display().to_string())?;
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
                bail!("rejected rows: {}, see {rejected}", thousands(state.counts.rejected))
            }
            None => Ok(()),
        }
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
            page.line("duplicates are dropped by the cleaner and not counted here: rapportctl account");
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
}

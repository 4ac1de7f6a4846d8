use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use comfy_table::Cell;
use rapport_evaluation::Interval;
use rapport_events::EventTime;
use rapport_proto::events::Event;
use rapport_shapes::mapping::Mapping;
use serde_json::json;

use crate::{
    blocking::on_thread,
    commands::right,
    context::Context,
    error::Usage,
    import::{Page as Rows, Recipe, Shape},
    output::{self, Page, Progress, thousands},
    rows::{self, Delimited, Format},
    served::{
        cases::{Kind, Known},
        drive::{self, How},
        figures::{Figures, Judgement, Lists, judge},
    },
};

pub const AFTER_HELP: &str = "\
The events are SENT: they join the tenant's log like any others. Import what lies before a moment, train, and replay \
what lies after it; a second replay of the same file is all duplicates and is refused.

  rapportctl import events before.ndjson && rapportctl train
  rapportctl evaluate served after.ndjson --history before.ndjson";

/// More events than this are no sample but a load test.
const MOST_EVENTS: usize = 5_000_000;

#[derive(Debug, Args)]
pub struct Served {
    /// Events to replay: CSV, NDJSON or Parquet; .gz and .zst are inflated (not of Parquet)
    file: PathBuf,
    /// Events that are in the mesh already, in the same form: says what customers have, and which items are new
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// How rows become events, in YAML; without one, each line of NDJSON is an event already
    #[arg(long, short = 'm', value_name = "YAML")]
    mapping: Option<PathBuf>,
    /// At most so many events, the first by time
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Customers at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    at_once: u16,
    /// How long an event may take until an answer knows it
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// Write each case with both lists' places into this file, as NDJSON
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
}

impl Served {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let history = match self.history.clone() {
            Some(path) => Some(self.events(path).await?),
            None => None,
        };
        let mut events = self.events(self.file.clone()).await?;
        events.sort_by_key(|event| event.event_time.as_ref().and_then(EventTime::from_proto).map(EventTime::as_ms));
        events.truncate(self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)));
        let kinds = history.as_ref().map_or_else(Known::default, Known::from_history).kinds(&events);
        drop(history);
        let progress = Progress::start("replay", events.len() as u64, "events");
        let how = How { at_once: self.at_once.into(), patience: self.patience };
        let started = Instant::now();
        let replayed = drive::replay(context, events.clone(), &kinds, how, &progress).await?;
        progress.finish(events.len() as u64);
        if let Some(path) = &self.cases {
            write_cases(path, &events, &kinds, &replayed)?;
        }
        let judged = judge(&events, &kinds, &replayed)?;
        let took = started.elapsed();
        context.output.answer(
            || json!({ "events": events.len(), "seconds": took.as_secs_f64(), "judgement": judged }),
            |page| show(page, &judged, events.len(), took),
        );
        Ok(())
    }

    /// All events of a file, in its order.
    async fn events(&self, path: PathBuf) -> anyhow::Result<Vec<Event>> {
        let format = Format::of(&path)?;
        let shape = match &self.mapping {
            Some(mapping) => {
                let text = fs::read_to_string(mapping).with_context(|| format!("cannot read {}", mapping.display()))?;
                let read = Mapping::from_yaml(&text).map_err(|e| Usage(format!("{}: {e}", mapping.display())))?;
                Shape::Mapped(Box::new(read))
            }
            None if format == Format::Ndjson => Shape::Bulk,
            None => return Err(Usage("rows that are no NDJSON need a mapping; try: --mapping FILE.yaml".into()).into()),
        };
        on_thread("rows", move || read(&path, format, shape)).await
    }
}

fn read(path: &Path, format: Format, shape: Shape) -> anyhow::Result<Vec<Event>> {
    let delimited = Delimited { delimiter: b',', quote: b'"', header: true, columns: None };
    let recipe = Recipe::new(shape, &rows::sha256(path, |_| ())?);
    let (mut page, mut events) = (Rows::default(), Vec::new());
    let (all, _) = rows::open(path, format, &delimited, 0)?;
    for row in all {
        recipe.cook(row?, &mut page, &mut events);
        if let Some(rejection) = page.rejected.first() {
            bail!("{}: row {}: {}: {}", path.display(), rejection.row, rejection.field, rejection.reason);
        }
        if events.len() > MOST_EVENTS {
            bail!("{} has more than {} events; try: a part of it", path.display(), thousands(MOST_EVENTS as u64));
        }
    }
    Ok(events)
}

fn write_cases(path: &Path, events: &[Event], kinds: &[Kind], replayed: &drive::Replayed) -> anyhow::Result<()> {
    let mut text = String::new();
    for case in &replayed.answered {
        let event = &events[case.place];
        let list = |list: &drive::List| {
            json!({"rank": list.rank, "behind": list.behind, "cached": list.hit_cache, "degraded": list.degraded,
                   "by_model": list.by_model, "sources": list.sources})
        };
        let row = json!({
            "customer_id": event.customer_id, "item_id": event.item_id, "kind": kinds[case.place].name(),
            "at_once": list(&case.at_once), "fresh": list(&case.fresh),
        });
        text += &format!("{row}\n");
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn show(page: &mut Page, judged: &Judgement, events: usize, took: Duration) {
    let between = |i: &Interval| format!("{:.4} to {:.4}", i.lower, i.upper);
    let mut table = output::table(["next items in the list of ten", "cases", "HR@10", "95 %", "NDCG@10", "95 %"]);
    let mut row = |what: &str, figures: Option<&Figures>| {
        let Some(Figures { cases, hr, ndcg }) = figures else { return };
        table.add_row(vec![
            Cell::new(what),
            right(thousands(*cases as u64)),
            right(format!("{:.4}", hr.estimate)),
            right(between(hr)),
            right(format!("{:.4}", ndcg.estimate)),
            right(between(ndcg)),
        ]);
    };
    row("lists that reflect every event", judged.fresh.as_ref());
    row("lists as they come at once", judged.at_once.as_ref());
    row("the first, items of the history only", judged.fresh_known_items.as_ref());
    row("customers without a history", judged.strangers.as_ref());
    page.table(&table);
    if let Some(i) = &judged.fresh_is_better_by {
        page.line(format!("a list that reflects every event is better by {:.4} NDCG@10 ({})", i.estimate, between(i)));
    }
    let kinds: Vec<String> =
        judged.kinds.iter().map(|(kind, count)| format!("{kind} {}", thousands(*count as u64))).collect();
    page.line(format!("{} events: {}", thousands(events as u64), kinds.join(", ")));
    for (what, lists) in [("every event", &judged.lists_fresh), ("at once", &judged.lists_at_once)] {
        page.line(described(what, lists));
    }
    let known = judged.known_after_ms.map_or_else(String::new, |[median, most]| {
        format!("; an event is known {median:.1} ms after its acknowledgement (99 %: {most:.1} ms)")
    });
    page.line(format!("{} events were not reflected in time{known}; took {}", judged.late, output::human(took)));
}

fn described(what: &str, lists: &Lists) -> String {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let hits: BTreeMap<&String, &u64> = lists.hits.iter().collect();
    let hits: Vec<String> = hits.iter().map(|(source, count)| format!("{source} {count}")).collect();
    format!(
        "{what}: {} from the cache, {} behind by an event or more, {} degraded; {} of their items by the model; hits: {}",
        percent(lists.from_the_cache),
        percent(lists.behind),
        percent(lists.degraded),
        percent(lists.by_model),
        if hits.is_empty() { "none".to_owned() } else { hits.join(", ") },
    )
}

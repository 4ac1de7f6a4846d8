use std::{path::PathBuf, sync::Arc, time::Instant};

use anyhow::Context as _;
use clap::Args;
use rapport_events::{EventTime, Tenant, pseudonym::Pseudonymiser};
use rapport_features::{Entity, Known, OnDemand, Reference, Requested, Spread, Views};
use rapport_offline::{OfflineArgs, OfflineLog, Selection};
use serde_json::json;

use crate::{
    blocking::on_thread,
    context::Context,
    error::Usage,
    evaluate::whole_file,
    join::{
        computed,
        past::{EVENTS_AT_ONCE, Joined, Past},
        spine::{Columns, Spine},
        table,
    },
    offline_log,
    output::{self, Progress},
    rows::Format,
};

/// From when on an event is known
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    /// From its own time: what came late counts where it belongs
    EventTime,
    /// From when it had been received: what serving could have had at that moment
    Arrival,
}

#[derive(Debug, Args)]
pub struct Join {
    /// The spine: a CSV, NDJSON or Parquet file with a row for each example. It names a moment and a customer, an
    /// item or both. With a category come the customer's features of it; those of a visit are of the one that the
    /// row names, else of the newest by then. All other columns, labels above all, are kept
    #[arg(long)]
    spine: PathBuf,
    /// Where the rows go: .parquet, .csv or .ndjson
    #[arg(long)]
    output: PathBuf,
    /// Only these views
    #[arg(long, value_delimiter = ',')]
    views: Vec<String>,
    /// The file of views [default: the newest that `features apply` put in force, else the built-in ones]
    #[arg(long, env = "RAPPORT_VIEWS")]
    view_file: Option<PathBuf>,
    #[arg(long, default_value = "customer_id")]
    customer_column: String,
    #[arg(long, default_value = "item_id")]
    item_column: String,
    #[arg(long, default_value = "category")]
    category_column: String,
    #[arg(long, default_value = "session_id")]
    session_column: String,
    #[arg(long, default_value = "segment")]
    segment_column: String,
    #[arg(long, default_value = "event_timestamp")]
    at_column: String,
    /// From when on an event is known
    #[arg(long, value_enum, default_value_t = By::EventTime)]
    known: By,
    /// Leave out events of the very moment: for spines that are made of events
    #[arg(long)]
    before: bool,
    /// Makes these rows the reference that drift is measured against from now on: the customers' features
    #[arg(long)]
    reference: bool,
    /// The cleaner's key, when the spine has e-mail addresses or phone numbers as customers: the log has their hashes
    #[arg(long, env = "RAPPORT_HASH_KEY", hide_env_values = true)]
    hash_key: Option<String>,
    /// The offline log: a folder, or s3://<bucket>/<prefix> with AWS_* variables [default: the running stack's, else .rapport/offline]
    #[arg(long, env = "RAPPORT_OFFLINE_URL")]
    offline_url: Option<String>,
}

impl Join {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let formats = (Format::of(&self.spine)?, Format::of(&self.output)?);
        whole_file::check(&self.output)?;
        let pseudonymiser = self.hash_key.as_deref().map(Pseudonymiser::from_config).transpose();
        let pseudonymiser = pseudonymiser.map_err(|error| Usage(format!("--hash-key: {error}")))?;
        let offline = offline_log::args(self.offline_url.as_ref(), context)?;
        let (tenant, output) = (context.tenant.clone(), context.output);
        let told = on_thread("join", move || self.join(formats, &offline, &tenant, pseudonymiser, output)).await?;
        context.output.answer(
            || told.json(),
            |page| {
                page.line(format!(
                    "{} rows with {} features each in {} (schema {})",
                    output::thousands(told.rows as u64),
                    told.features,
                    output::human(told.took),
                    told.schema_hash
                ));
                page.line(format!("written: {}", told.written.display()));
            },
        );
        Ok(())
    }

    fn join(
        self,
        (format, out): (Format, Format),
        offline: &OfflineArgs,
        tenant: &Tenant,
        pseudonymiser: Option<Pseudonymiser>,
        output: output::Output,
    ) -> anyhow::Result<Told> {
        let since = Instant::now();
        let log = OfflineLog::open(offline)?;
        let views = self.declared(&log, output)?;
        let columns = Columns {
            customer: self.customer_column,
            item: self.item_column,
            category: self.category_column,
            session: self.session_column,
            segment: self.segment_column,
            at: self.at_column,
        };
        let mut spine = Spine::read(&self.spine, format, &columns)?;
        if let Some(pseudonymiser) = pseudonymiser {
            for id in spine.keys.iter_mut().filter_map(|key| key.customer.as_mut()) {
                *id = pseudonymiser.customer_id(tenant, id);
            }
        }
        let selection = Selection::of(tenant);
        let files = log.manifests()?.into_iter().flat_map(|manifest| manifest.files);
        let total: u64 = files.filter(|file| selection.takes(file)).map(|file| file.rows as u64).sum();
        if total == 0 {
            return Err(Usage(format!(
                "the offline log at {} has no event of the tenant {tenant}",
                offline.offline_url
            ))
            .into());
        }

        let past = Past {
            log: &log,
            tenant,
            views: &views,
            known: match self.known {
                By::EventTime => Known::ByTime,
                By::Arrival => Known::ByArrival,
            },
            before: self.before,
            events_at_once: EVENTS_AT_ONCE,
        };
        let progress = Progress::start("reading the log", total, "events");
        let mut joined = past.join(&spine.keys, |read| progress.at(read.min(total)))?;
        progress.clear();
        let requested = computed::requested(&spine.table, &views)?;
        let lacking = lacking(&joined.vectors, &views, &self.views, &requested);
        if let Some((feature, need)) = lacking.first() {
            let said = format!("the spine has no column {need:?}, which {feature} is computed from");
            if !self.views.is_empty() {
                return Err(Usage(said).into());
            }
            output.note(format!("{said}: it has no value ({} features like it)", lacking.len()));
        }
        computed::append(&mut joined.vectors, &views, &spine.keys, &requested);
        narrow(&mut joined.vectors, &views, &self.views)?;
        let reference = self.reference.then(|| reference(&joined, &spine, views.schema_hash())).transpose()?;
        let joined_table = table::beside(&spine.table, &joined.vectors)?;
        let features = joined_table.num_columns() - spine.table.num_columns();
        let about = [("rapport.schema_hash", views.schema_hash().to_owned()), ("rapport.tenant", tenant.to_string())];
        whole_file::write(&self.output, &table::written(&joined_table, out, &about)?)?;
        if let Some(reference) = &reference {
            // A file of the same millisecond is another's reference: one later is as good.
            let json = reference.to_json().map_err(anyhow::Error::msg)?;
            while !log.put_reference(tenant, EventTime::now(), &json)? {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            output.note("these rows are the reference that drift is measured against");
        }
        Ok(Told {
            reference: reference.is_some(),
            rows: joined_table.num_rows(),
            features,
            events: joined.events,
            passes: joined.passes,
            newest: joined.newest.map(|time| time.to_string()),
            schema_hash: views.schema_hash().to_owned(),
            written: self.output,
            took: since.elapsed(),
        })
    }

    /// The views of the file, or those in force, or the built-in ones.
    fn declared(&self, log: &OfflineLog, output: output::Output) -> anyhow::Result<Arc<Views>> {
        let parsed = |of: String, yaml: &str| Views::parse(yaml).map_err(|error| Usage(format!("{of}: {error}")));
        if let Some(file) = &self.view_file {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            return Ok(Arc::new(parsed(file.display().to_string(), &text)?));
        }
        let filled = log.generations()?.into_iter().rev().find(|(_, generation)| generation.filled);
        if let Some((number, _)) = filled {
            output.note(format!("with generation {number} of the views, which is in force"));
            return Ok(Arc::new(parsed(format!("generation {number}"), &log.generation_text(number)?)?));
        }
        output.note("with the built-in views; others go with --view-file");
        Ok(Arc::new(Views::built_in()?))
    }
}

/// On-demand features among the rows' that a request value is missing for, and which; of the views that are
/// wanted, or of all.
fn lacking<'a>(
    vectors: &[crate::join::past::Vectors],
    views: &'a Views,
    wanted: &[String],
    requested: &Requested,
) -> Vec<(&'a str, &'a str)> {
    let of_rows = vectors.iter().flat_map(|vectors| views.on_demand(vectors.entity));
    let of_views = of_rows.filter(|feature| {
        let view = feature.name().split_once('.').map(|(view, _)| view);
        wanted.is_empty() || wanted.iter().any(|name| Some(name.as_str()) == view)
    });
    let missing = |feature: &'a OnDemand| {
        let need = feature.needs().iter().find(|need| !requested.has(need));
        need.map(|need| (feature.name(), need.as_str()))
    };
    of_views.filter_map(missing).collect()
}

/// Down to the columns of the views that were asked for.
fn narrow(vectors: &mut Vec<crate::join::past::Vectors>, views: &Views, wanted: &[String]) -> Result<(), Usage> {
    if wanted.is_empty() {
        return Ok(());
    }
    for name in wanted {
        let view = views.views().iter().find(|view| view.name == *name);
        let view = view.ok_or_else(|| Usage(format!("--views {name}: there is no such view")))?;
        if !vectors.iter().any(|vectors| vectors.entity == view.entity) {
            return Err(Usage(format!("--views {name}: the spine names no {}", view.entity)));
        }
    }
    for of_entity in vectors.iter_mut() {
        let theirs =
            |view: &&rapport_features::ViewInfo| view.entity == of_entity.entity && wanted.contains(&view.name);
        let names: Vec<String> = views.views().iter().filter(theirs).map(|view| view.name.clone()).collect();
        let entity = of_entity.entity;
        let (mut columns, mut lists) = (Vec::new(), Vec::new());
        if !names.is_empty() {
            columns = views.columns(entity, &names).map_err(Usage)?;
            let stored = views.names(entity).len();
            let computed = views.on_demand_columns(entity, &names).map_err(Usage)?;
            columns.extend(computed.into_iter().map(|column| stored + column));
            lists = views.list_columns(entity, &names).map_err(Usage)?;
        }
        of_entity.keep(&columns, &lists);
    }
    vectors.retain(|vectors| !vectors.names.is_empty() || !vectors.list_names.is_empty());
    Ok(())
}

/// How the customers' features are spread over the rows.
fn reference(joined: &Joined, spine: &Spine, schema_hash: &str) -> Result<Reference, Usage> {
    let customers = joined.vectors.iter().find(|vectors| vectors.entity == Entity::Customer);
    let customers = customers.ok_or_else(|| Usage("--reference: the rows have no customers' features".into()))?;
    // A row without a customer has no features of one: that is no missing value.
    let rows = || spine.keys.iter().map(|key| key.customer.is_some());
    let spread = |values: &Vec<f64>| {
        let mut spread = Spread::default();
        values.iter().zip(rows()).filter(|(_, named)| *named).for_each(|(value, _)| spread.insert(*value));
        spread
    };
    let features = customers.names.iter().cloned().zip(customers.columns.iter().map(spread)).collect();
    Ok(Reference::new(schema_hash, rows().filter(|named| *named).count() as u64, features))
}

struct Told {
    reference: bool,
    rows: usize,
    features: usize,
    events: u64,
    passes: u32,
    newest: Option<String>,
    schema_hash: String,
    written: PathBuf,
    took: std::time::Duration,
}

impl Told {
    fn json(&self) -> serde_json::Value {
        json!({
            "rows": self.rows, "features": self.features, "events": self.events, "passes": self.passes,
            "newest_event_time": self.newest, "schema_hash": self.schema_hash, "written": self.written,
            "seconds": self.took.as_secs_f64(), "reference": self.reference,
        })
    }
}

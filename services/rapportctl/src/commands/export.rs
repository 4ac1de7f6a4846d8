use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::Args;
use rapport_events::EventTime;
use rapport_offline::OfflineLog;
use rapport_proto::recommend::{RecommendRequest, recommender_client::RecommenderClient};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet};
use tonic::transport::Channel;

use crate::{
    blocking::on_thread,
    context::Context,
    error::{Usage, retryable},
    export::{
        customers,
        sink::{Files, Made, Sink, Topic},
    },
    offline_log,
    output::{self, Output, Progress},
    rows::Format,
};

/// Lists that may wait to be written; then the calls wait.
const WAITING: usize = 1_000;
/// A call that a scorer refuses for now is made again so often, with growing pauses.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Calls that fail for good are shown up to here.
const SHOWN: usize = 5;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("to").required(true).args(["output", "topic"]))]
pub struct Export {
    /// An empty folder for part-00000.parquet and so on; _SUCCESS says that all is there
    #[arg(long)]
    output: Option<PathBuf>,
    /// A topic: a Served record for each customer, as on recommendations.served
    #[arg(long)]
    topic: Option<String>,
    /// What files are made of
    #[arg(long, value_enum, default_value_t = Format::Parquet)]
    format: Format,
    /// Only these customers: a file with an id a line
    #[arg(long, conflicts_with = "active_within")]
    customers: Option<PathBuf>,
    /// Only customers with an event so long ago at most, 30d for example
    #[arg(long, value_parser = humantime::parse_duration)]
    active_within: Option<Duration>,
    /// How many items
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// By the rules of this placement
    #[arg(long, default_value = "")]
    placement: String,
    /// Only items of this category
    #[arg(long, default_value = "")]
    category: String,
    /// Also items that the customer already has
    #[arg(long)]
    include_seen: bool,
    /// Calls at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// The offline log, which says who the customers are: a folder or s3://<bucket>/<prefix> [default: the running stack's, else .rapport/offline]
    #[arg(long, env = "RAPPORT_OFFLINE_URL")]
    offline_url: Option<String>,
}

/// What the calls have come to.
#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    empty: AtomicU64,
    failed: AtomicU64,
}

impl Export {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let customers = self.whose(context).await?;
        let mut sink = match (&self.output, &self.topic) {
            (Some(folder), _) => Sink::Files(Files::open(folder, self.format, &context.tenant)?),
            (None, Some(topic)) => Sink::Topic(Topic::open(&context.kafka, topic, &context.tenant)?),
            (None, None) => return Err(Usage("where to? --output or --topic".into()).into()),
        };
        let (since, of) = (Instant::now(), customers.len() as u64);
        let progress = Progress::start("lists", of, "lists");
        let (tally, next) = (Arc::new(Tally::default()), Arc::new(AtomicU64::new(0)));
        let customers = Arc::new(customers);
        let (to_sink, mut lists) = mpsc::channel(WAITING);
        let mut calls = JoinSet::new();
        for _ in 0..self.concurrency {
            let caller = Caller {
                scorer: context.scorer()?,
                request: context.request(self.request())?,
                customers: Arc::clone(&customers),
                next: Arc::clone(&next),
                tally: Arc::clone(&tally),
                to_sink: to_sink.clone(),
                timeout: context.timeout,
                output: context.output,
            };
            calls.spawn(caller.run());
        }
        drop(to_sink);
        while let Some(made) = lists.recv().await {
            sink.put(made).await?;
            progress.at(tally.answered.load(Ordering::Relaxed));
        }
        while let Some(ended) = calls.join_next().await {
            ended?;
        }
        progress.clear();
        let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (answered, empty, failed) = (counted(&tally.answered), counted(&tally.empty), counted(&tally.failed));
        // Who waits for _SUCCESS must not take a part for the whole.
        sink.end(failed == 0).await?;
        if failed > 0 {
            bail!("{failed} of {of} customers have no list; those of the others are there, without _SUCCESS");
        }
        let took = since.elapsed();
        context.output.answer(
            || json!({ "customers": of, "lists": answered, "empty": empty, "seconds": took.as_secs_f64() }),
            |page| {
                page.line(format!(
                    "{} lists in {} ({} a second)",
                    output::thousands(answered),
                    output::human(took),
                    output::thousands(output::per_second(answered, took))
                ));
                if empty > 0 {
                    page.line(format!("{} of them are empty", output::thousands(empty)));
                }
                match (&self.output, &self.topic) {
                    (Some(folder), _) => page.line(format!("written: {}", folder.display())),
                    (_, topic) => page.line(format!("on the topic {}", topic.as_deref().unwrap_or_default())),
                }
            },
        );
        Ok(())
    }

    fn request(&self) -> RecommendRequest {
        RecommendRequest {
            limit: self.limit,
            include_seen: self.include_seen,
            category: self.category.clone(),
            placement: self.placement.clone(),
            not_shown: true,
            ..RecommendRequest::default()
        }
    }

    async fn whose(&self, context: &Context) -> anyhow::Result<Vec<String>> {
        let customers = if let Some(file) = self.customers.clone() {
            on_thread("customers", move || customers::of_file(&file)).await?
        } else {
            let offline = offline_log::args(self.offline_url.as_ref(), context)?;
            let age = self.active_within.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
            let since = age.map(|age| EventTime::from_ms(EventTime::now().as_ms().saturating_sub(age)));
            let tenant = context.tenant.clone();
            on_thread("customers", move || {
                let log = OfflineLog::open(&offline)?;
                let progress = Progress::start("reading the log", 0, "events");
                let customers = customers::of_log(&log, &tenant, since, |read| progress.at(read));
                progress.clear();
                customers
            })
            .await?
        };
        if customers.is_empty() {
            return Err(Usage("there is no customer to make a list for".into()).into());
        }
        Ok(customers)
    }
}

/// One of the calls at once: takes the next customer until there is none.
struct Caller {
    scorer: RecommenderClient<Channel>,
    request: tonic::Request<RecommendRequest>,
    customers: Arc<Vec<String>>,
    next: Arc<AtomicU64>,
    tally: Arc<Tally>,
    to_sink: mpsc::Sender<Made>,
    timeout: Duration,
    output: Output,
}

impl Caller {
    async fn run(mut self) {
        loop {
            let n = usize::try_from(self.next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX);
            let customers = Arc::clone(&self.customers);
            let Some(customer) = customers.get(n) else { return };
            match self.ask(customer).await {
                Ok(made) => {
                    self.tally.answered.fetch_add(1, Ordering::Relaxed);
                    self.tally.empty.fetch_add(u64::from(made.answer.items.is_empty()), Ordering::Relaxed);
                    // The other end is gone when it could not write: it says why.
                    if self.to_sink.send(made).await.is_err() {
                        return;
                    }
                }
                Err(status) => {
                    let before = self.tally.failed.fetch_add(1, Ordering::Relaxed);
                    if before < SHOWN as u64 {
                        self.output.remark(format!("{customer}: {}: {}", status.code(), status.message()));
                    }
                }
            }
        }
    }

    async fn ask(&mut self, customer: &str) -> Result<Made, tonic::Status> {
        let mut pause = FIRST_PAUSE;
        let mut tries = 0;
        loop {
            tries += 1;
            let mut request = tonic::Request::new(RecommendRequest {
                customer_id: customer.to_owned(),
                ..self.request.get_ref().clone()
            });
            *request.metadata_mut() = self.request.metadata().clone();
            request.set_timeout(self.timeout);
            match self.scorer.recommend(request).await {
                Ok(answer) => {
                    return Ok(Made {
                        customer_id: customer.to_owned(),
                        at: EventTime::now(),
                        answer: answer.into_inner(),
                    });
                }
                Err(status) if retryable(&status) && tries < TRIES => tokio::time::sleep(pause).await,
                Err(status) => return Err(status),
            }
            pause = pause.saturating_mul(2);
        }
    }
}

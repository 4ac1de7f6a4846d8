//! Settings of the trainer, as flags and `RAPPORT_...` variables.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use rapport_events::Tenant;
use rapport_kafka::KafkaArgs;
use rapport_offline::OfflineArgs;
use rapport_registry::RegistryArgs;
use rapport_rpc::ServerArgs;
use rapport_runtime::{RuntimeArgs, parse_duration};
use rapport_telemetry::{ServiceConfig, TelemetryArgs};

use crate::{compress::Way, dataset::Memory, feedback::hit_rate::HitRateArgs, kept::SumsArgs};

/// How the model that a run writes is made smaller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    /// As it was exported
    #[default]
    Off,
    /// Weights stored in float16: half the size
    Half,
    /// Weights of products and the table of items in int8: a quarter of the size
    Int8,
    /// The table of items in int8
    Table,
}

impl Compression {
    /// `None` when nothing is to be done.
    pub fn way(self) -> Option<Way> {
        match self {
            Self::Off => None,
            Self::Half => Some(Way::Half),
            Self::Int8 => Some(Way::Combined),
            Self::Table => Some(Way::Int8Rows),
        }
    }
}

/// Passes and seconds that a caller may ask for.
pub const MAX_EPOCHS: u32 = 1_000;
pub const MAX_BUDGET_S: u32 = 24 * 3600;

/// Trains next-item models from the offline log, judges them on a time-ordered hold-out against
/// baselines and the live model, and publishes the one that wins.
///
/// Without a command it is a service (gRPC: start, watch and cancel runs, list models, promote, roll
/// back). `rapport-trainer train` runs once and exits, for a Kubernetes Job: see `rapport-trainer
/// train --help`.
#[derive(Debug, clap::Parser)]
#[command(name = "rapport-trainer", version)]
pub struct Config {
    /// Where gRPC answers
    #[arg(long, env = "RAPPORT_GRPC_ADDR", default_value = "127.0.0.1:7401")]
    pub grpc_addr: SocketAddr,

    /// The tenant of calls that name none
    #[arg(long, env = "RAPPORT_DEFAULT_TENANT", default_value = "demo")]
    pub default_tenant: Tenant,

    /// Runs that may wait behind the running one
    #[arg(long, env = "RAPPORT_TRAINER_QUEUE", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub queue: u16,

    /// Folder where runs and long trainings are kept, so that a trainer that was killed goes on where it
    /// was; .trainer in the registry's folder when not set. One trainer at a time may use it
    #[arg(long, env = "RAPPORT_TRAINER_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Start a run when the last one is older, for the default tenant (for example 24h)
    #[arg(long, env = "RAPPORT_TRAIN_EVERY", value_parser = parse_duration)]
    pub every: Option<Duration>,

    /// Start a run when so many events have come since the last one, for the default tenant
    #[arg(long, env = "RAPPORT_TRAIN_FRESH_EVENTS", value_parser = clap::value_parser!(u64).range(1..))]
    pub fresh_events: Option<u64>,

    /// Start a run when what has come since the live model was trained is spread otherwise than what it
    /// learned from: a population stability index, .25 by custom, of items, types, gaps or histories
    #[arg(long, env = "RAPPORT_RETRAIN_DRIFT", value_name = "INDEX", value_parser = drift)]
    pub retrain_drift: Option<f64>,

    /// Start a run when a feature store says that features of customers are spread otherwise than in the
    /// reference (`rapportctl features join --reference`): a population stability index, .25 by custom
    #[arg(long, env = "RAPPORT_RETRAIN_FEATURE_DRIFT", value_name = "INDEX", value_parser = drift)]
    pub retrain_feature_drift: Option<f64>,

    #[command(flatten)]
    pub hit_rate: HitRateArgs,

    /// Try the winner of a run where nobody sees it: it goes live when scorers have made so many lists with it
    /// beside the live model's, at most one in a hundred late or failed. Without it a winner goes live at once
    #[arg(long, env = "RAPPORT_TRAIN_SHADOW_LISTS", value_parser = clap::value_parser!(u64).range(1..))]
    pub shadow_lists: Option<u64>,

    #[command(flatten)]
    pub training: TrainingArgs,
    #[command(flatten)]
    pub sums: SumsArgs,
    #[command(flatten)]
    pub offline: OfflineArgs,
    #[command(flatten)]
    pub registry: RegistryArgs,
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// How models are trained and judged.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Training")]
pub struct TrainingArgs {
    /// Event types that count, several separated by commas; all that name an item when not set
    #[arg(long, env = "RAPPORT_TRAIN_EVENTS", value_delimiter = ',')]
    pub event_types: Vec<String>,

    /// Event type that models are chosen and judged by, a purchase for example; all that are learned from when
    /// not set
    #[arg(long, env = "RAPPORT_TRAIN_ASKED", value_name = "TYPE")]
    pub asked: Option<String>,

    /// First day of event time that is learned from, YYYY-MM-DD; the whole log when not set
    #[arg(long, env = "RAPPORT_TRAIN_SINCE", value_parser = day)]
    pub since: Option<String>,

    /// Events with an item that one run may learn from
    #[arg(long, env = "RAPPORT_TRAIN_MAX_EVENTS", default_value_t = 200_000_000)]
    pub max_events: usize,

    #[command(flatten)]
    pub events: MemoryArgs,

    /// Items that a model may know; beyond it the rarest are left out
    #[arg(long, env = "RAPPORT_TRAIN_MAX_ITEMS", default_value_t = 20_000)]
    pub max_items: usize,

    /// How long training the sequence model may take, training it again on all data included
    #[arg(long, env = "RAPPORT_TRAIN_BUDGET", default_value = "120s", value_parser = parse_duration)]
    pub budget: Duration,

    /// Folder of recipes, <kind>.yaml each: what they say takes the place of a kind's defaults
    #[arg(long, env = "RAPPORT_TRAIN_RECIPES", value_name = "DIR")]
    pub recipes: Option<PathBuf>,

    /// Folder where long trainings keep where they are, to go on after a crash. Not set, the service uses
    /// its state folder and a single run keeps nothing
    #[arg(long, env = "RAPPORT_TRAIN_CHECKPOINTS", value_name = "DIR")]
    pub checkpoints: Option<PathBuf>,

    /// A pass that ends so long after the last checkpoint writes one: what a crash may cost
    #[arg(long, env = "RAPPORT_TRAIN_CHECKPOINT_EVERY", default_value = "20s", value_parser = parse_duration)]
    pub checkpoint_every: Duration,

    /// Make the published model smaller, if its NDCG@10 on the test cases falls by at most 1 %
    #[arg(long, env = "RAPPORT_TRAIN_COMPRESS", value_enum, default_value_t = Compression::Off)]
    pub compress: Compression,

    /// Test cases below which no model goes live
    #[arg(long, env = "RAPPORT_TRAIN_MIN_CASES", default_value_t = 30)]
    pub min_cases: u64,

    /// Threads of libtorch; 0 takes one for each core
    #[arg(long, env = "RAPPORT_TRAIN_THREADS", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=512))]
    pub threads: u16,

    /// ONNX Runtime's shared library; otherwise ORT_DYLIB_PATH, otherwise where the system looks
    #[arg(long, env = "RAPPORT_ONNXRUNTIME")]
    pub onnxruntime: Option<PathBuf>,
}

/// Where events are while they are learned from.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct MemoryArgs {
    /// MiB of events that are in memory: a larger log is sorted on disk and read from there. The tables of
    /// customers and items come on top
    #[arg(long = "memory", env = "RAPPORT_TRAIN_MEMORY_MIB", default_value_t = 2_048, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub memory_mib: u32,

    /// Where a larger log is put while it is learned from: a folder on a disk, which gets about 60 bytes an
    /// event. The system's folder for temporary files when not set
    #[arg(long, env = "RAPPORT_TRAIN_SPILL_DIR", value_name = "DIR")]
    pub spill_dir: Option<PathBuf>,
}

impl MemoryArgs {
    pub fn memory(&self) -> Memory {
        Memory {
            bytes: (self.memory_mib as usize) << 20,
            folder: self.spill_dir.clone().unwrap_or_else(std::env::temp_dir),
        }
    }
}

fn drift(text: &str) -> Result<f64, String> {
    let index = text.parse().ok().filter(|index: &f64| (0.05..=10.0).contains(index));
    index.ok_or_else(|| format!("{text:?} is not an index from 0.05 (chance alone comes near it) to 10"))
}

fn day(text: &str) -> Result<String, String> {
    rapport_events::EventTime::parse_rfc3339(&format!("{text}T00:00:00Z"))
        .map(rapport_events::EventTime::day)
        .filter(|day| day == text)
        .ok_or_else(|| format!("{text:?} is not a day as YYYY-MM-DD"))
}

impl TrainingArgs {
    pub fn memory(&self) -> Memory {
        self.events.memory()
    }

    /// What clap does not check.
    ///
    /// # Errors
    /// The flag and what would be right.
    pub fn check(&self) -> Result<(), String> {
        if !(2..=1_000_000).contains(&self.max_items) {
            return Err(format!("--max-items must be between 2 and 1000000, is {}", self.max_items));
        }
        if self.max_events < 10 {
            return Err(format!("--max-events must be at least 10, is {}", self.max_events));
        }
        if self.budget.is_zero() || self.budget > Duration::from_secs(MAX_BUDGET_S.into()) {
            return Err(format!("--budget must be above 0 and at most 24h, is {:?}", self.budget));
        }
        Ok(())
    }
}

impl Config {
    /// Where the service's trainings keep where they are.
    pub fn checkpoints(&self) -> PathBuf {
        self.training.checkpoints.clone().unwrap_or_else(|| self.state_dir().join("checkpoints"))
    }

    /// Where runs are kept.
    pub fn runs(&self) -> PathBuf {
        self.state_dir().join("runs")
    }

    /// Where everything is that must outlive the process.
    pub fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| self.registry.registry_dir.join(".trainer"))
    }
}

impl ServiceConfig for Config {
    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    fn telemetry(&self) -> &TelemetryArgs {
        &self.telemetry
    }

    fn default_admin_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 7403))
    }

    fn check(&self) -> Result<(), String> {
        self.kafka.check()?;
        self.training.check()
    }
}

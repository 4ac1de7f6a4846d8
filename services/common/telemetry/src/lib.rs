//! Logs, traces and metrics, the port that shows a service's health, and the `main` that every
//! service shares.

mod admin;
mod logs_and_traces;
mod service;

use std::net::SocketAddr;

pub use service::{ServiceConfig, service_main};

/// How a service shows what it does, the same for every service.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetryArgs {
    /// What to log, as a tracing filter: `info`, or `info,rapport_cleaner=debug`
    #[arg(long, env = "RAPPORT_LOG", default_value = "info")]
    pub log_filter: String,

    /// Logs as text for people or as JSON lines for programs
    #[arg(long, env = "RAPPORT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Where to send traces over OTLP/gRPC, for example http://localhost:4317; none when not set
    #[arg(long, env = "RAPPORT_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,

    /// Share of new traces that are recorded, 0 to 1; a caller's decision is always followed
    #[arg(long, env = "RAPPORT_TRACE_SAMPLE", default_value_t = 0.01)]
    pub trace_sample: f64,

    /// Where /livez, /readyz and /metrics answer [default: the service's own port]
    #[arg(long, env = "RAPPORT_ADMIN_ADDR")]
    pub admin_addr: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

use std::{fmt::Display, future::Future, io::Write, net::SocketAddr, process::ExitCode, time::Duration};

use rapport_runtime::{Lifecycle, RuntimeArgs};
use tokio::signal::unix::{SignalKind, signal};

use crate::{TelemetryArgs, admin, logs_and_traces};

/// `EX_USAGE` of sysexits.h: the configuration is wrong, and a restart will not mend it.
const EXIT_BAD_CONFIGURATION: u8 = 64;

/// Time for the last spans to leave, after the service itself has stopped.
const FLUSH_BUDGET: Duration = Duration::from_secs(3);

/// A service's configuration: one clap struct, flags and `RAPPORT_...` variables.
pub trait ServiceConfig: clap::Parser {
    fn runtime(&self) -> &RuntimeArgs;
    fn telemetry(&self) -> &TelemetryArgs;
    /// The service's own default for `--admin-addr`.
    fn default_admin_addr(&self) -> SocketAddr;
    /// What clap cannot check by itself. Runs before any socket opens.
    ///
    /// # Errors
    /// The flag and what would be right.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// The `main` of every service: reads and checks the configuration (exit code 64 when it is bad),
/// starts logs, traces, metrics and the admin port, runs, and on SIGTERM or SIGINT drains within
/// the budget. Exit code 0 after a drain, 1 after a failure.
pub fn service_main<C, E, F, Fut>(service: &'static str, run: F) -> ExitCode
where
    C: ServiceConfig,
    E: Display,
    F: FnOnce(C, Lifecycle) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let config = match C::try_parse() {
        Ok(config) => config,
        Err(error) => {
            let bad = error.use_stderr();
            // Nothing can be done where even the terminal is gone.
            error.print().ok();
            return if bad { ExitCode::from(EXIT_BAD_CONFIGURATION) } else { ExitCode::SUCCESS };
        }
    };
    if let Err(reason) = config.check().and_then(|()| check_telemetry(config.telemetry())) {
        writeln!(std::io::stderr(), "error: {reason}\n\nFor more information, try '--help'.").ok();
        return ExitCode::from(EXIT_BAD_CONFIGURATION);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(config.runtime().worker_threads))
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            writeln!(std::io::stderr(), "error: the operating system gives no threads: {error}").ok();
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(supervise(service, config, run));
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

fn check_telemetry(args: &TelemetryArgs) -> Result<(), String> {
    if !(0.0..=1.0).contains(&args.trace_sample) {
        return Err(format!("--trace-sample must be between 0 and 1, is {}", args.trace_sample));
    }
    logs_and_traces::check_filter(&args.log_filter)
}

async fn supervise<C, E, F, Fut>(service: &'static str, config: C, run: F) -> ExitCode
where
    C: ServiceConfig,
    E: Display,
    F: FnOnce(C, Lifecycle) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let telemetry = match logs_and_traces::start(service, config.telemetry()) {
        Ok(telemetry) => telemetry,
        Err(reason) => {
            writeln!(std::io::stderr(), "error: {reason}").ok();
            return ExitCode::from(EXIT_BAD_CONFIGURATION);
        }
    };
    let lifecycle = Lifecycle::new();
    let budget = config.runtime().drain_budget;
    let admin_addr = config.telemetry().admin_addr.unwrap_or_else(|| config.default_admin_addr());
    let admin = match admin::Admin::bind(service, admin_addr, lifecycle.clone()).await {
        Ok(admin) => admin,
        Err(error) => {
            tracing::error!(%error, %admin_addr, "the admin port cannot be opened");
            return ExitCode::FAILURE;
        }
    };
    let signals = match watch_signals(lifecycle.clone()) {
        Ok(task) => task,
        Err(error) => {
            tracing::error!(%error, "signals cannot be watched");
            return ExitCode::FAILURE;
        }
    };
    tracing::info!(service, version = env!("CARGO_PKG_VERSION"), %admin_addr, "starting");

    let out_of_time = async {
        lifecycle.drain_requested().await;
        tokio::time::sleep(budget).await;
    };
    let result = tokio::select! {
        result = run(config, lifecycle.clone()) => result.map_err(|e| e.to_string()),
        () = out_of_time => Err(format!("still busy {budget:?} after the drain began")),
    };
    signals.abort();
    admin.stop().await;
    let code = match result.and_then(|()| lifecycle.failure().map_or(Ok(()), Err)) {
        Ok(()) => {
            tracing::info!(service, "stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(service, %error, "failed");
            ExitCode::FAILURE
        }
    };
    telemetry.stop(FLUSH_BUDGET);
    code
}

fn watch_signals(lifecycle: Lifecycle) -> std::io::Result<tokio::task::JoinHandle<()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::spawn(async move {
        let name = tokio::select! { _ = term.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
        tracing::info!(signal = name, "draining");
        lifecycle.drain();
    }))
}

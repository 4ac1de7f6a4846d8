//! Memory under full load for minutes, with Kafka stalled for a part of them: `bench soak`.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use comfy_table::{ContentArrangement, Table, presets};
use rapport_integration_tests::harness::{Service, Stack};
use rapport_proto::collect::{CollectBatchRequest, outcome};

use crate::load;

const CALLERS: usize = 64;
const SIZE: usize = 100;
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// What memory may differ by between the steady minutes before the stall and those after it.
const FLAT: f64 = 0.15;

/// Full load for minutes while Kafka stalls for a part of them
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long, in seconds
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// For how long of it Kafka is stopped (SIGSTOP), in the middle
    #[arg(long, default_value_t = 120)]
    stalled: u64,
}

/// Resident memory of one service in MiB: where it stood in the part before the stall, in it, and after.
struct Memory {
    name: &'static str,
    samples: Vec<(Duration, f64)>,
}

impl Memory {
    fn highest(&self, from: Duration, to: Duration) -> f64 {
        self.samples.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, mib)| *mib).fold(0.0, f64::max)
    }
}

pub async fn run(args: Args) -> ExitCode {
    let mut stack = Stack::new("soak");
    stack.start(&[Service::Collector, Service::Cleaner]).await;
    let (whole, stalled) = (Duration::from_secs(args.seconds), Duration::from_secs(args.stalled));
    let (stall_at, resume_at) = ((whole - stalled) / 2, (whole + stalled) / 2);
    println!("soak: {CALLERS} callers for {whole:?}, Kafka stopped from {stall_at:?} to {resume_at:?}");

    let over = Arc::new(AtomicBool::new(false));
    let (accepted, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (over, accepted, refused) = (Arc::clone(&over), Arc::clone(&accepted), Arc::clone(&refused));
            let mut client = stack.collector();
            tokio::spawn(async move {
                let mut batch = 0;
                while !over.load(Ordering::Relaxed) {
                    let run = format!("soak{caller}");
                    let events = (0..SIZE).map(|n| load::event(&run, batch * SIZE + n, 5_000)).collect();
                    match client.collect_batch(CollectBatchRequest { events }).await {
                        Ok(answer) => {
                            let all = answer.into_inner().outcomes;
                            let taken = all.iter().filter(|one| one.status() == outcome::Status::Accepted).count();
                            accepted.fetch_add(taken as u64, Ordering::Relaxed);
                            refused.fetch_add((all.len() - taken) as u64, Ordering::Relaxed);
                        }
                        Err(status) => {
                            refused.fetch_add(SIZE as u64, Ordering::Relaxed);
                            // As RetryInfo asks.
                            drop(status);
                            tokio::time::sleep(Duration::from_millis(200)).await;
                        }
                    }
                    batch += 1;
                }
            })
        })
        .collect();

    let began = Instant::now();
    let mut memory = [Service::Collector, Service::Cleaner].map(|s| Memory { name: s.name(), samples: Vec::new() });
    let mut is_stalled = false;
    let mut said = Duration::ZERO;
    while began.elapsed() < whole {
        tokio::time::sleep(SAMPLE_EVERY).await;
        let now = began.elapsed();
        if !is_stalled && (stall_at..resume_at).contains(&now) {
            stack.broker.freeze();
            is_stalled = true;
        }
        if is_stalled && now >= resume_at {
            stack.broker.thaw();
            is_stalled = false;
        }
        for (place, service) in [Service::Collector, Service::Cleaner].into_iter().enumerate() {
            let mib = stack.process(service).resident_bytes() as f64 / f64::from(1 << 20);
            memory[place].samples.push((now, mib));
        }
        if now >= said + Duration::from_secs(30) {
            said = now;
            let last = |m: &Memory| m.samples.last().map_or(0.0, |(_, mib)| *mib);
            eprintln!(
                "  {:>4} s: {:>11} accepted, collector {:.0} MiB, cleaner {:.0} MiB{}",
                now.as_secs(),
                accepted.load(Ordering::Relaxed),
                last(&memory[0]),
                last(&memory[1]),
                if is_stalled { ", Kafka stopped" } else { "" }
            );
        }
    }
    if is_stalled {
        stack.broker.thaw();
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }

    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["highest MiB", "before (2nd half)", "while Kafka is stopped", "after", "last 10 %", "flat"]);
    let mut flat = true;
    for m in &memory {
        let before = m.highest(stall_at / 2, stall_at);
        let (during, after) = (m.highest(stall_at, resume_at), m.highest(resume_at, whole));
        let last = m.highest(whole.mul_f64(0.9), whole * 2);
        // A process that is gone has no memory, and is no proof of anything.
        let is_gone = m.samples.last().is_none_or(|(_, mib)| *mib <= 0.0);
        let is_flat = last <= during.max(before) * (1.0 + FLAT);
        flat &= is_flat && !is_gone;
        let mib = |value: f64| format!("{value:.0}");
        let verdict = match (is_gone, is_flat) {
            (true, _) => "it has ENDED",
            (false, true) => "yes",
            (false, false) => "NO",
        };
        table.add_row([m.name.to_owned(), mib(before), mib(during), mib(after), mib(last), verdict.to_owned()]);
    }
    println!(
        "\n{} events accepted, {} refused with a time to retry or to be sent again\n\n{table}",
        accepted.load(Ordering::Relaxed),
        refused.load(Ordering::Relaxed)
    );
    if flat { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

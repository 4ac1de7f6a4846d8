//! Medians, ratios, and the table.

use std::time::{Duration, Instant};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use rapport_integration_tests::harness::process::cpu_of;

#[derive(Default)]
pub struct Report {
    throughput: Vec<Row>,
    latency: Vec<LatencyRow>,
    /// Of parts that have a table of their own.
    tables: Vec<Table>,
}

/// One thing measured against its ceiling, both per second.
pub struct Row {
    pub what: String,
    pub unit: &'static str,
    pub ours: Vec<Run>,
    pub ceiling: Vec<Run>,
    /// The share of the ceiling that the project aims at.
    pub goal: Option<f64>,
}

pub struct LatencyRow {
    pub what: String,
    pub p50: Duration,
    pub p99: Duration,
    pub goal: &'static str,
    pub note: String,
}

/// One run: how many, how long, and what each process spent on it.
pub struct Run {
    pub count: usize,
    pub took: Duration,
    pub cpu: Vec<(&'static str, Duration)>,
}

impl Run {
    pub fn per_second(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64()
    }
}

/// Watches the clock and the CPU time of processes while something runs.
pub struct Watch {
    started: Instant,
    processes: Vec<(&'static str, u32, Duration)>,
}

impl Watch {
    /// Of these processes, and of this one as "bench".
    pub fn start(processes: &[(&'static str, u32)]) -> Self {
        let all = processes.iter().copied().chain([("bench", std::process::id())]);
        let processes = all.map(|(name, pid)| (name, pid, cpu_of(pid))).collect();
        Self { started: Instant::now(), processes }
    }

    pub fn stop(self, count: usize) -> Run {
        let took = self.started.elapsed();
        let cpu = self.processes.into_iter().map(|(name, pid, before)| (name, cpu_of(pid).saturating_sub(before)));
        Run { count, took, cpu: cpu.collect() }
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

pub fn rate(runs: &[Run]) -> f64 {
    median(runs.iter().map(Run::per_second).collect())
}

/// Median CPU seconds per million, for each process.
fn cpu(runs: &[Run]) -> String {
    let names: Vec<&str> = runs.first().into_iter().flat_map(|run| run.cpu.iter().map(|(name, _)| *name)).collect();
    let of = |name: &str| {
        let per_million = |run: &Run| {
            let spent = run.cpu.iter().find(|(n, _)| *n == name).map_or(Duration::ZERO, |(_, spent)| *spent);
            spent.as_secs_f64() * 1e6 / run.count as f64
        };
        median(runs.iter().map(per_million).collect())
    };
    names.iter().map(|name| format!("{name} {:.1}", of(name))).collect::<Vec<_>>().join(", ")
}

impl Report {
    pub fn add(&mut self, row: Row) {
        eprintln!(
            "  {}: {:.0} {} of {:.0}, {:.2}",
            row.what,
            rate(&row.ours),
            row.unit,
            rate(&row.ceiling),
            rate(&row.ours) / rate(&row.ceiling)
        );
        self.throughput.push(row);
    }

    /// The median rate of a row that was added.
    pub fn rate_of(&self, what: &str) -> f64 {
        self.throughput.iter().find(|row| row.what == what).map_or(f64::NAN, |row| rate(&row.ours))
    }

    pub fn add_latency(&mut self, row: LatencyRow) {
        eprintln!("  {}: p50 {:.1?}, p99 {:.1?}", row.what, row.p50, row.p99);
        self.latency.push(row);
    }

    pub fn add_table<const N: usize>(&mut self, header: [&str; N], rows: Vec<[String; N]>) {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(header);
        for row in rows {
            table.add_row(row);
        }
        self.tables.push(table);
    }

    pub fn print(&self, quick: bool, took: Duration) {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!("\n{cores} cores, everything on this machine, loopback only; {:.0} s in all", took.as_secs_f64());
        if quick {
            println!("--quick: short runs, to see that it works and not to quote");
        }
        if !self.throughput.is_empty() {
            let mut table = Table::new();
            table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
            table.set_header([
                "",
                "ours /s",
                "ceiling /s",
                "ratio",
                "goal",
                "runs",
                "CPU seconds per million, ours",
                "..., ceiling",
            ]);
            for row in &self.throughput {
                let (ours, ceiling) = (rate(&row.ours), rate(&row.ceiling));
                let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
                table.add_row([
                    Cell::new(format!("{} ({})", row.what, row.unit)),
                    right(format!("{ours:.0}")),
                    right(format!("{ceiling:.0}")),
                    right(format!("{:.2}", ours / ceiling)),
                    right(row.goal.map_or_else(|| "-".into(), |goal| format!("{goal:.2}"))),
                    right(format!("{}+{}", row.ours.len(), row.ceiling.len())),
                    Cell::new(cpu(&row.ours)),
                    Cell::new(cpu(&row.ceiling)),
                ]);
            }
            println!("\n{table}");
        }
        for table in &self.tables {
            println!("\n{table}");
        }
        if !self.latency.is_empty() {
            let mut table = Table::new();
            table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
            table.set_header(["", "p50 ms", "p99 ms", "goal p50 / p99", ""]);
            for row in &self.latency {
                let ms = |d: Duration| match d.as_secs_f64() * 1e3 {
                    few if few < 10.0 => format!("{few:.2}"),
                    many => format!("{many:.1}"),
                };
                table.add_row([row.what.clone(), ms(row.p50), ms(row.p99), row.goal.into(), row.note.clone()]);
            }
            println!("\n{table}");
        }
    }
}

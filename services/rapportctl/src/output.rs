//! The only place that prints: tables and JSON to standard output, progress and errors to
//! standard error, so that `rapportctl ... --json | jq` works.
#![allow(clippy::print_stdout, clippy::print_stderr)] // this is a command line's output module

use std::{
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rapport_events::EventTime;
use serde_json::Value;

use crate::error::{USAGE, Usage};

/// How answers are written.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// The answer: `value` for programs, what `people` writes for people.
    pub fn answer(self, value: impl FnOnce() -> Value, people: impl FnOnce(&mut Page)) {
        if self.json {
            println!("{:#}", value());
        } else {
            let mut page = Page(String::new());
            people(&mut page);
            print!("{}", page.0);
        }
    }

    /// Something that went beside the answer, to standard error.
    pub fn remark(self, text: impl AsRef<str>) {
        eprintln!("{}", text.as_ref());
    }

    /// A remark on the way, never part of the answer.
    pub fn note(self, text: impl AsRef<str>) {
        if self.json {
            eprintln!("{}", text.as_ref());
        } else {
            println!("{}", text.as_ref());
        }
    }
}

/// What a person reads, line by line.
pub struct Page(String);

impl Page {
    pub fn line(&mut self, text: impl AsRef<str>) {
        self.0.push_str(text.as_ref());
        self.0.push('\n');
    }

    pub fn table(&mut self, table: &Table) {
        self.line(table.to_string());
    }
}

/// A table with the columns `header`, as wide as its content or the terminal.
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}

/// These columns are never broken into lines: what stands in them is copied.
pub fn keep_whole(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

/// A moment for a table: to the second, in UTC.
pub fn moment(time: EventTime) -> String {
    let text = time.to_string();
    let seconds = text.get(..19).unwrap_or(&text);
    seconds.replace('T', " ")
}

/// Prints an error with its causes; the exit code says whether the command line was wrong.
pub fn failure(error: &anyhow::Error) -> ExitCode {
    eprintln!("rapportctl: {error:#}");
    if error.downcast_ref::<Usage>().is_some() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
}

/// Help and version are answers; anything else that clap says is a wrong command line.
pub fn clap_error(error: &clap::Error) -> ExitCode {
    if let Err(broken_pipe) = error.print() {
        eprintln!("rapportctl: {broken_pipe}");
    }
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// How often a progress line is written when there is no terminal to redraw.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);

/// A progress bar on a terminal, a line now and then where there is none.
pub struct Progress {
    bar: ProgressBar,
    label: String,
    unit: &'static str,
    started: Instant,
    last_line: Option<Mutex<Instant>>,
    /// Shown as a share of the total instead of as numbers.
    share: bool,
}

impl Progress {
    /// `total` 0 means that the end is not known.
    pub fn start(label: &str, total: u64, unit: &'static str) -> Self {
        let template = if total == 0 {
            "{prefix:>16} {spinner} {human_pos} {msg}"
        } else {
            "{prefix:>16} [{bar:32}] {human_pos}/{human_len} {msg}"
        };
        Self::with(label, total, unit, template, false)
    }

    /// How much of `total` is done, where its unit tells people nothing (bytes of a file).
    pub fn share(label: &str, total: u64, unit: &'static str) -> Self {
        Self::with(label, total.max(1), unit, "{prefix:>16} [{bar:24}] {percent:>3}% {msg}", true)
    }

    fn with(label: &str, total: u64, unit: &'static str, template: &str, share: bool) -> Self {
        let bar = if total == 0 { ProgressBar::no_length() } else { ProgressBar::new(total) };
        bar.set_draw_target(ProgressDrawTarget::stderr());
        let plain = bar.is_hidden();
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(label.to_owned());
        Self {
            bar,
            label: label.to_owned(),
            unit,
            started: Instant::now(),
            last_line: plain.then(|| Mutex::new(Instant::now())),
            share,
        }
    }

    /// `position` of the total is done.
    pub fn at(&self, position: u64) {
        let rate = self.rate(position);
        self.say(position, format!("{} {}/s", thousands(rate), self.unit));
    }

    /// The same with words instead of a rate.
    pub fn say(&self, position: u64, message: String) {
        self.bar.set_position(position);
        if let Some(last) = &self.last_line {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() >= PLAIN_INTERVAL {
                *last = Instant::now();
                let done = match self.bar.length() {
                    Some(total) if self.share => format!("{}%", position.saturating_mul(100) / total.max(1)),
                    Some(total) => format!("{}/{}", thousands(position), thousands(total)),
                    None => thousands(position),
                };
                eprintln!("{:>16} {done}  {message}", self.label);
            }
        }
        self.bar.set_message(message);
    }

    /// Ends the bar and leaves one line with the rate.
    pub fn finish(&self, position: u64) {
        let seconds = self.started.elapsed().as_secs_f64();
        let line = format!(
            "{:>16} {} {} in {seconds:.1} s ({}/s)",
            self.label,
            thousands(position),
            self.unit,
            thousands(self.rate(position))
        );
        self.end(&line);
    }

    /// Ends the bar and leaves nothing.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Ends the bar and leaves `line`.
    pub fn end(&self, line: &str) {
        self.bar.finish_and_clear();
        eprintln!("{line}");
    }

    /// How long the rest takes when it goes on as it went since `from`; `None` before one can tell.
    pub fn time_left(&self, from: u64, position: u64) -> Option<Duration> {
        let total = self.bar.length()?;
        time_left(self.started.elapsed(), position.saturating_sub(from), total.saturating_sub(position))
    }

    fn rate(&self, position: u64) -> u64 {
        per_second(position, self.started.elapsed())
    }
}

/// Whole things per second.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
// a rate for a person: rounding is wanted, and it is never negative
pub fn per_second(count: u64, elapsed: Duration) -> u64 {
    (count as f64 / elapsed.as_secs_f64().max(1e-3)).round() as u64
}

/// `None` in the first second, and before anything is done.
#[allow(clippy::cast_precision_loss)] // an estimate for a person
fn time_left(elapsed: Duration, done: u64, left: u64) -> Option<Duration> {
    if done == 0 || elapsed < Duration::from_secs(1) {
        return None;
    }
    Duration::try_from_secs_f64(elapsed.as_secs_f64() * left as f64 / done as f64).ok()
}

/// 1234567 as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A duration with the unit that suits a person: `8.4 ms`, `2.31 s`, `3 d`, `27.2 y`.
pub fn human(duration: Duration) -> String {
    const DAY: f64 = 86_400.0;
    let s = duration.as_secs_f64();
    match s {
        s if s < 0.001 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.2} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 2.0 * DAY => format!("{:.1} h", s / 3600.0),
        s if s < 730.0 * DAY => format!("{:.0} d", s / DAY),
        s => format!("{:.1} y", s / (365.25 * DAY)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (100_000, "100,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn durations_read_in_the_unit_that_suits_them() {
        assert_eq!(human(Duration::from_micros(250)), "250 us");
        assert_eq!(human(Duration::from_micros(8_420)), "8.4 ms");
        assert_eq!(human(Duration::from_millis(2_310)), "2.31 s");
        assert_eq!(human(Duration::from_secs(86_400 * 3)), "3 d");
        assert_eq!(human(Duration::from_secs(27 * 31_557_600)), "27.0 y");
    }

    #[test]
    fn the_time_left_follows_the_rate_so_far() {
        let seconds = Duration::from_secs;
        assert_eq!(time_left(seconds(10), 25, 75), Some(seconds(30)));
        assert_eq!(time_left(seconds(10), 0, 75), None);
        assert_eq!(time_left(Duration::from_millis(10), 25, 75), None);
    }

    #[test]
    fn a_moment_is_shown_to_the_second() {
        assert_eq!(moment(EventTime::from_ms(881_250_949_250)), "1997-12-04 15:55:49");
    }

    #[test]
    fn a_usage_error_has_its_own_exit_code() {
        let wrong = anyhow::Error::new(Usage("--rate must be positive".into()));
        assert_eq!(format!("{:?}", failure(&wrong)), format!("{:?}", ExitCode::from(64)));
        assert_eq!(format!("{:?}", failure(&anyhow::anyhow!("no broker"))), format!("{:?}", ExitCode::FAILURE));
    }
}

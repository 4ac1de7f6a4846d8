//! From rows to acknowledged events, with the place kept on the way.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use prost::Message as _;
use rapport_proto::events::Event;
use tokio::sync::mpsc;

use super::{Book, Counts, Page, Recipe, RejectedFile, State};
use crate::{
    blocking::on_thread,
    context::Context,
    lane::{self, Batch, Lane, Via},
    output::{Progress, per_second, thousands},
    rows::{Extent, Rows},
};

/// Events of one page, and so of one request on the collector's stream.
const PAGE_EVENTS: usize = 500;
/// Bytes of one page's events: below what a gRPC message may have.
const PAGE_BYTES: usize = 1 << 20;
/// Rows of one page, where they stand for few events.
const PAGE_ROWS: u64 = 2_000;
/// Pages that are read ahead.
const PAGES_AHEAD: usize = 2;
/// How much is done again at most after a crash, beside what is on its way.
const STATE_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// When so many rows were rejected and none was taken, the mapping is wrong and not the rows.
const HOPELESS: u64 = 1_000;

/// How events go.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    pub via: Via,
    /// How long to go on without any acknowledgement.
    pub patience: Duration,
    /// Rows of this run at most.
    pub limit: u64,
}

/// Why an import stops before the end of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Interrupted,
    TooManyRejected(u64),
    Hopeless,
}

/// Sends everything; returns what was done, what stopped it, and how many events were sent again.
///
/// # Errors
/// What ended it; its place is kept, and said.
pub async fn transfer(
    context: &Context,
    way: &Way,
    rows: Rows,
    recipe: Recipe,
    mut keeper: Keeper,
) -> anyhow::Result<(State, Option<Stop>, u64)> {
    let mut lanes = lane::open(context, way.via, way.patience)?;
    let tallies: Vec<_> = lanes.iter().map(|lane| Arc::clone(&lane.tally)).collect();
    let (pages, waiting) = mpsc::channel(PAGES_AHEAD);
    let limit = way.limit;
    let reader = tokio::spawn(on_thread("rows", move || read(rows, &recipe, limit, &pages)));

    let outcome = match send(&mut keeper, &mut lanes, waiting).await {
        Ok(None) => finish(&mut keeper, lanes).await,
        other => other,
    };
    // The reader ends now: its channel is closed from one of the two sides.
    let read = reader.await.context("the reader died")?;
    let (stop, whole) = match (outcome, read) {
        (Ok(stop), Ok(whole)) => (stop, whole),
        (Err(error), _) | (_, Err(error)) => return Err(keeper.kept(error)),
    };
    keeper.state.complete = whole && stop.is_none();
    keeper.keep(true)?;
    keeper.progress.clear();
    Ok((keeper.state, stop, tallies.iter().map(|tally| tally.again()).sum()))
}

/// Reads rows into pages until the file or the limit ends, or nobody wants more. True at the file's
/// end.
fn read(rows: Rows, recipe: &Recipe, limit: u64, pages: &mpsc::Sender<(Page, Vec<Event>)>) -> anyhow::Result<bool> {
    let mut rows = rows;
    let (mut page, mut events, mut bytes) = (Page::default(), Vec::with_capacity(PAGE_EVENTS), 0);
    let mut left = limit;
    loop {
        let row = if left == 0 { None } else { rows.next() };
        let whole = row.is_none();
        if let Some(Ok(row)) = row {
            left -= 1;
            let before = events.len();
            recipe.cook(row, &mut page, &mut events);
            bytes += events[before..].iter().map(Event::encoded_len).sum::<usize>();
            if events.len() < PAGE_EVENTS && bytes < PAGE_BYTES && page.rows < PAGE_ROWS {
                continue;
            }
            let next = (std::mem::take(&mut page), std::mem::replace(&mut events, Vec::with_capacity(PAGE_EVENTS)));
            bytes = 0;
            if pages.blocking_send(next).is_err() {
                return Ok(false);
            }
            continue;
        }
        if page.rows > 0 && pages.blocking_send((page, events)).is_err() {
            return Ok(false);
        }
        return match row {
            Some(Err(error)) => Err(error),
            _ => Ok(whole && left > 0),
        };
    }
}

/// Hands every page to the lanes in turn.
async fn send(
    keeper: &mut Keeper,
    lanes: &mut [Lane],
    mut pages: mpsc::Receiver<(Page, Vec<Event>)>,
) -> anyhow::Result<Option<Stop>> {
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut turn = 0;
    loop {
        let next = tokio::select! {
            next = pages.recv() => Some(next),
            () = tokio::time::sleep(LOOK_EVERY) => None,
            _ = &mut interrupted => return Ok(Some(Stop::Interrupted)),
        };
        match next {
            Some(None) => return Ok(None),
            Some(Some((page, events))) => {
                let receipt = keeper.book.open(page);
                if !events.is_empty() {
                    let batch = Batch { events, since: Instant::now(), receipt: Some(receipt) };
                    tokio::select! {
                        sent = lanes[turn].send(batch) => sent?,
                        _ = &mut interrupted => return Ok(Some(Stop::Interrupted)),
                    }
                    turn = (turn + 1) % lanes.len();
                }
            }
            None => {}
        }
        if let Some(stop) = keeper.keep(false)? {
            return Ok(Some(stop));
        }
    }
}

/// Waits for the last acknowledgements.
async fn finish(keeper: &mut Keeper, lanes: Vec<Lane>) -> anyhow::Result<Option<Stop>> {
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    for lane in lanes {
        let mut finish = std::pin::pin!(lane.finish());
        loop {
            tokio::select! {
                result = &mut finish => {
                    result?;
                    break;
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = &mut interrupted => return Ok(Some(Stop::Interrupted)),
            }
            keeper.keep(false)?;
        }
    }
    keeper.keep(true)
}

/// Keeps the place: takes finished pages down, in order, and writes the state now and then.
pub struct Keeper {
    book: Book,
    state: State,
    state_path: PathBuf,
    rejected: RejectedFile,
    written: Instant,
    max_rejected: Option<u64>,
    extent: Extent,
    from: u64,
    rows_before: u64,
    started: Instant,
    progress: Progress,
}

impl Keeper {
    pub fn new(
        state: State,
        state_path: PathBuf,
        rejected: RejectedFile,
        extent: Extent,
        max_rejected: Option<u64>,
    ) -> Self {
        Self {
            book: Book::default(),
            rows_before: state.counts.rows,
            state,
            state_path,
            rejected,
            written: Instant::now(),
            max_rejected,
            from: extent.done.load(Ordering::Relaxed),
            progress: Progress::share("import", extent.total, "rows"),
            extent,
            started: Instant::now(),
        }
    }

    /// `now`: write the state, whenever that was done last.
    fn keep(&mut self, now: bool) -> anyhow::Result<Option<Stop>> {
        for page in self.book.take_done() {
            for rejection in &page.rejected {
                self.rejected.write(rejection)?;
            }
            self.state.counts += page.counts();
            self.state.done_row = page.last_row;
        }
        let stop = stop(&self.state.counts, self.max_rejected);
        if now || stop.is_some() || self.written.elapsed() >= STATE_EVERY {
            self.state.rejected_bytes = self.rejected.sync()?;
            self.state.write(&self.state_path)?;
            self.written = Instant::now();
        }
        self.show();
        Ok(stop)
    }

    fn show(&self) {
        let counts = &self.state.counts;
        let done = self.extent.done.load(Ordering::Relaxed);
        let rate = per_second(counts.rows - self.rows_before, self.started.elapsed());
        let left = self.progress.time_left(self.from, done);
        let seconds = |left: Duration| humantime::format_duration(Duration::from_secs(left.as_secs())).to_string();
        let left = left.map_or(String::new(), |left| format!(", {} left", seconds(left)));
        let rejected =
            if counts.rejected == 0 { String::new() } else { format!(", {} rejected", thousands(counts.rejected)) };
        self.progress.say(done, format!("{} rows, {}/s{rejected}{left}", thousands(counts.rows), thousands(rate)));
    }

    /// An error that ends the import, with where it goes on.
    fn kept(&mut self, error: anyhow::Error) -> anyhow::Error {
        self.progress.clear();
        let place = match (self.keep(true), self.state.done_row) {
            (Err(second), _) => format!("the place could not be kept: {second:#}"),
            (Ok(_), 0) => "nothing is done yet".to_owned(),
            (Ok(_), row) => format!("row {} and all before it are done; run it again to go on", thousands(row)),
        };
        error.context(place)
    }
}

fn stop(counts: &Counts, max_rejected: Option<u64>) -> Option<Stop> {
    match max_rejected {
        Some(most) if counts.rejected > most => Some(Stop::TooManyRejected(most)),
        None if counts.rejected >= HOPELESS && counts.events == 0 && counts.passed_over == 0 => Some(Stop::Hopeless),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        import::Shape,
        rows::{Body, Row},
    };

    #[test]
    fn a_run_stops_when_more_is_rejected_than_allowed_or_when_nothing_fits() {
        let counts = |events, rejected| Counts { rows: events + rejected, events, rejected, ..Counts::default() };
        assert_eq!(stop(&counts(5, 1_000_000), None), None);
        assert_eq!(stop(&counts(0, HOPELESS), None), Some(Stop::Hopeless));
        assert_eq!(stop(&counts(5, 3), Some(2)), Some(Stop::TooManyRejected(2)));
        assert_eq!(stop(&counts(5, 2), Some(2)), None);
    }

    #[test]
    fn reading_ends_with_the_limit_the_file_or_the_reader() {
        let rows = |count: u64| -> Rows {
            Box::new((1..=count).map(|number| Ok(Row { number, body: Ok(Body::Line(b"not json".to_vec())) })))
        };
        let run = |count, limit| {
            let (pages, mut waiting) = mpsc::channel(100);
            let whole = read(rows(count), &Recipe::new(Shape::Bulk, "h"), limit, &pages).unwrap();
            drop(pages);
            let mut last = 0;
            while let Ok((page, _)) = waiting.try_recv() {
                last = page.last_row;
            }
            (whole, last)
        };
        assert_eq!(run(5_000, u64::MAX), (true, 5_000));
        assert_eq!(run(5_000, 4_100), (false, 4_100));
        let (pages, waiting) = mpsc::channel(1);
        drop(waiting);
        assert!(!read(rows(5_000), &Recipe::new(Shape::Bulk, "h"), u64::MAX, &pages).unwrap());
    }

    #[test]
    fn rows_before_a_fault_in_the_file_are_sent() {
        let rows: Rows = Box::new(
            [Ok(Row { number: 1, body: Ok(Body::Line(b"x".to_vec())) }), Err(anyhow::anyhow!("broken"))].into_iter(),
        );
        let (pages, mut waiting) = mpsc::channel(2);
        let result = read(rows, &Recipe::new(Shape::Bulk, "h"), u64::MAX, &pages);
        assert_eq!(result.unwrap_err().to_string(), "broken");
        assert_eq!(waiting.try_recv().unwrap().0.last_row, 1);
    }
}

//! How large a model is and how fast it answers.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use rapport_inference::{Asked, NextItemModel};
use serde::{Serialize, Serializer};

use super::Error;

/// Histories in one run: one customer who waits, and a busy batch.
pub const BATCHES: [usize; 2] = [1, 32];
/// Items in a history, or as many as the model looks at, if fewer.
pub const HISTORY_LENGTH: usize = 100;
/// Runs before the clock starts: the first ones allocate.
const WARM_UP: usize = 3;

/// A model's size and speed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Measurement {
    pub bytes: u64,
    /// As a store or a network that compresses sees it (gzip, level 6).
    pub gzip_bytes: u64,
    /// For each of [`BATCHES`].
    pub latencies: [Latency; BATCHES.len()],
}

/// Time for one run of the model, which scores `batch` histories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Latency {
    pub batch: usize,
    #[serde(rename = "p50_ms", serialize_with = "milliseconds")]
    pub p50: Duration,
    #[serde(rename = "p95_ms", serialize_with = "milliseconds")]
    pub p95: Duration,
}

fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64() * 1e3)
}

/// Scores made-up histories `runs` times for each of [`BATCHES`], on one thread as the scorer does.
/// ONNX Runtime must be initialised.
///
/// # Errors
/// No runs, or the model cannot be loaded or run.
pub fn measure(model: &[u8], runs: usize) -> Result<Measurement, Error> {
    if runs == 0 {
        return Err(Error::Empty("run"));
    }
    let mut session = session(model, 1)?;
    let mut latencies = BATCHES.map(|batch| Latency { batch, p50: Duration::ZERO, p95: Duration::ZERO });
    for latency in &mut latencies {
        let histories = histories(latency.batch, session.width());
        for _ in 0..WARM_UP {
            session.scores(&histories)?;
        }
        let mut times = Vec::with_capacity(runs);
        for _ in 0..runs {
            let start = Instant::now();
            session.scores(&histories)?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        (latency.p50, latency.p95) = (quantile(&times, 50), quantile(&times, 95));
    }
    Ok(Measurement { bytes: model.len() as u64, gzip_bytes: gzip_bytes(model)?, latencies })
}

/// The model in the runtime that serves it; `threads` as [`NextItemModel::load`] has them.
pub(super) fn session(model: &[u8], threads: usize) -> Result<NextItemModel, Error> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(model)?;
    file.flush()?;
    Ok(NextItemModel::load(file.path(), threads)?)
}

/// Items spread over the whole table, one an hour, the same ones every time. `width` is items + 1.
fn histories(batch: usize, width: usize) -> Vec<Asked> {
    // Knuth's multiplicative hash (The Art of Computer Programming, volume 3, section 6.4).
    let item = |i: usize| (i as u64).wrapping_mul(2_654_435_761) % (width as u64 - 1).max(1) + 1;
    let history = |row: usize| Asked {
        items: (0..HISTORY_LENGTH).map(|i| item(row * HISTORY_LENGTH + i) as i64).collect(),
        times: (0..HISTORY_LENGTH).map(|i| i as i64 * 3600).collect(),
        now: HISTORY_LENGTH as i64 * 3600,
        ..Asked::default()
    };
    (0..batch).map(history).collect()
}

/// The nearest rank of sorted times; zero of none.
fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn gzip_bytes(model: &[u8]) -> io::Result<u64> {
    let mut encoder = GzEncoder::new(Counter(0), Compression::default());
    encoder.write_all(model)?;
    Ok(encoder.finish()?.0)
}

/// Counts what is written and keeps nothing.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_nearest_rank() {
        let times: Vec<Duration> = (1..=20).map(Duration::from_millis).collect();
        assert_eq!(quantile(&times, 50), Duration::from_millis(10));
        assert_eq!(quantile(&times, 95), Duration::from_millis(19));
        assert_eq!(quantile(&times[..1], 95), Duration::from_millis(1));
    }

    #[test]
    fn made_up_histories_hold_only_items_that_the_model_knows() {
        for width in [2, 3, 1683] {
            let items = histories(32, width).into_iter().flat_map(|history| history.items).collect::<Vec<_>>();
            assert_eq!(items.len(), 32 * HISTORY_LENGTH);
            assert!(items.iter().all(|&item| item >= 1 && item < width as i64));
        }
    }

    #[test]
    fn zeros_pay_when_stored_compressed() {
        let noise: Vec<u8> = (0..10_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let pruned: Vec<u8> = noise.iter().map(|&byte| if byte < 128 { 0 } else { byte }).collect();
        assert!(gzip_bytes(&pruned).unwrap() < gzip_bytes(&noise).unwrap());
    }
}

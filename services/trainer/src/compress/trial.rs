//! A way of compressing, tried on a model and the cases of its data: what it saves in bytes and time,
//! and what it costs in NDCG@10. Both graphs answer the same cases through ONNX Runtime.

use rapport_evaluation::PairedDifference;
use rapport_inference::Asked;
use serde::Serialize;

use super::{Difference, Measurement, TOP, Way, accept, acceptance::LARGEST_FALL, compare, latency, measure};
use crate::{
    Error,
    dataset::{Case, Dataset},
    evaluate::{Judged, judge},
    models::onnx::{OnnxModel, Theirs},
};

/// Histories whose lists are compared item by item, spread over the cases.
const COMPARED: usize = 256;

/// What models are tried on.
pub struct Subject<'a> {
    pub data: &'a Dataset,
    pub cases: &'a [Case],
    /// What the model calls the data's items and event types.
    pub theirs: Theirs,
    /// How many of the newest items the model looks at.
    pub sequence_length: usize,
    /// Runs behind each latency.
    pub runs: usize,
    pub stop: &'a dyn Fn() -> bool,
}

/// A graph's size, speed and quality.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    #[serde(flatten)]
    pub measured: Measurement,
    /// Over all cases. The weights may have learned from them: comparable with the other graph of
    /// the same weights, and with nothing else.
    #[serde(rename = "ndcg@10")]
    pub ndcg: f64,
}

/// How a way did.
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    /// The way's name.
    pub way: String,
    pub accepted: bool,
    pub reason: String,
    pub before: Figures,
    /// `None` where the model could not be compressed or its graph could not be run.
    pub after: Option<Figures>,
    pub difference: Option<Difference>,
    #[serde(skip)]
    compressed: Vec<u8>,
    /// The smaller graph's answers.
    #[serde(skip)]
    judged: Option<Judged>,
}

impl Trial {
    /// The graph to publish in the place of the original; `None` when it was refused.
    pub fn model(&self) -> Option<&[u8]> {
        self.accepted.then_some(self.compressed.as_slice())
    }

    /// NDCG@10 of this smaller graph minus that of another one, on the same cases, customers resampled.
    /// `None` where one of them could not be judged.
    ///
    /// # Errors
    /// Fewer than two customers.
    pub fn better_than(&self, other: &Self) -> Result<Option<PairedDifference>, Error> {
        match (&self.judged, &other.judged) {
            (Some(own), Some(others)) => own.better_than(others).map(Some),
            (None, _) | (_, None) => Ok(None),
        }
    }
}

/// A model as it was exported, measured once and tried in several ways.
pub struct Trials<'a> {
    original: &'a [u8],
    subject: Subject<'a>,
    histories: Vec<Asked>,
    before: Figures,
}

impl<'a> Trials<'a> {
    /// Measures the original. ONNX Runtime must be initialised.
    ///
    /// # Errors
    /// The model cannot be run, there are no cases or no runs, or the subject asked for the end.
    pub fn begin(original: &'a [u8], subject: Subject<'a>) -> Result<Self, Error> {
        let model = subject.model(original)?;
        let every = subject.cases.len().div_ceil(COMPARED).max(1);
        let asked = |case: &Case| {
            let customer = &subject.data.customers[case.customer];
            model.asked(customer.past(customer.items.len()).part(0, case.prefix))
        };
        let histories = subject.cases.iter().step_by(every).map(asked).collect();
        let (before, _) = subject.figures(original)?;
        Ok(Self { original, subject, histories, before })
    }

    /// The original's figures.
    pub fn before(&self) -> &Figures {
        &self.before
    }

    /// The original, to ask for its answers.
    ///
    /// # Errors
    /// The model cannot be loaded.
    pub fn teacher(&self) -> Result<OnnxModel, Error> {
        self.subject.model(self.original)
    }

    /// Compresses the model and judges what comes out. A way that fails is refused, with its reason:
    /// the original is there.
    ///
    /// # Errors
    /// The subject asked for the end.
    pub fn of(&self, way: Way) -> Result<Trial, Error> {
        self.judge(&way.to_string(), || Ok(way.apply(self.original)?))
    }

    /// The same with a smaller model that `make` brings, for the same items in the same order.
    ///
    /// # Errors
    /// The subject asked for the end.
    pub fn judge(&self, way: &str, make: impl FnOnce() -> Result<Vec<u8>, Error>) -> Result<Trial, Error> {
        match make().and_then(|compressed| self.judged(way, compressed)) {
            Ok(trial) => Ok(trial),
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => Ok(Trial {
                way: way.into(),
                accepted: false,
                reason: error.to_string(),
                before: self.before.clone(),
                after: None,
                difference: None,
                compressed: Vec::new(),
                judged: None,
            }),
        }
    }

    fn judged(&self, way: &str, compressed: Vec<u8>) -> Result<Trial, Error> {
        let (after, judged) = self.subject.figures(&compressed)?;
        let difference = compare(self.original, &compressed, &self.histories)?;
        let verdict = verdict(&self.before, &after);
        let accepted = verdict.is_ok();
        let reason = match verdict {
            Ok(reason) | Err(reason) => reason,
        };
        Ok(Trial {
            way: way.into(),
            accepted,
            reason,
            before: self.before.clone(),
            after: Some(after),
            difference: Some(difference),
            compressed,
            judged: Some(judged),
        })
    }
}

impl Subject<'_> {
    fn model(&self, bytes: &[u8]) -> Result<OnnxModel, Error> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(OnnxModel::new(latency::session(bytes, threads)?, self.sequence_length, self.theirs.clone()))
    }

    fn figures(&self, bytes: &[u8]) -> Result<(Figures, Judged), Error> {
        let judged = judge(&mut self.model(bytes)?, self.data, self.cases, self.stop)?;
        Ok((Figures { measured: measure(bytes, self.runs)?, ndcg: judged.figures.ndcg }, judged))
    }
}

/// Why it is accepted, or why it is not.
fn verdict(before: &Figures, after: &Figures) -> Result<String, String> {
    let smaller =
        after.measured.bytes < before.measured.bytes || after.measured.gzip_bytes < before.measured.gzip_bytes;
    let (is, was, most) = (after.ndcg, before.ndcg, 100.0 * LARGEST_FALL);
    let told = format!("NDCG@{TOP} is {is:.4}, it was {was:.4}; it may fall by {most} %");
    match (smaller, accept(was, is)) {
        (true, true) => Ok(told),
        (true, false) => Err(told),
        (false, _) => Err("it does not become smaller".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::compress::{BATCHES, Latency};

    fn figures(bytes: u64, gzip_bytes: u64, ndcg: f64) -> Figures {
        let latencies = BATCHES.map(|batch| Latency { batch, p50: Duration::ZERO, p95: Duration::ZERO });
        Figures { measured: Measurement { bytes, gzip_bytes, latencies }, ndcg }
    }

    #[test]
    fn what_is_smaller_and_as_good_is_accepted_and_anything_else_is_not() {
        let before = figures(100, 90, 0.2);
        assert!(verdict(&before, &figures(50, 45, 0.199)).is_ok());
        assert!(verdict(&before, &figures(100, 45, 0.2)).is_ok(), "a pruned model is smaller once it is stored");
        assert!(verdict(&before, &figures(50, 45, 0.197)).unwrap_err().contains("0.1970"));
        assert!(verdict(&before, &figures(101, 90, 0.3)).unwrap_err().contains("smaller"));
    }
}

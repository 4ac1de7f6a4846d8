//! A model that was brought as ONNX: evaluated through the runtime that serves it.

use rapport_inference::{Asked, NextItemModel};
use rapport_registry::{Artifact, ItemTable};

use super::{Each, NextItem, Past};
use crate::Error;

/// Histories in one run of the model.
const BATCH: usize = 64;

/// An artifact's own graph, with its own items.
pub struct OnnxModel {
    model: NextItemModel,
    sequence_length: usize,
    /// The artifact's index of each of the data set's items; 0 for items it does not know.
    theirs: Vec<i64>,
}

impl OnnxModel {
    /// # Errors
    /// The artifact cannot be read or its graph is not a next-item model.
    pub fn open(artifact: &Artifact, items: &ItemTable, threads: usize) -> Result<Self, Error> {
        let theirs = indexes(&artifact.items()?, items);
        let model = NextItemModel::load(&artifact.model_path(), threads)?;
        Ok(Self::new(model, artifact.manifest().description.sequence_length, theirs))
    }

    /// A graph that is loaded already. `theirs` is its index of each of the data set's items
    /// ([`indexes`]).
    pub fn new(model: NextItemModel, sequence_length: usize, theirs: Vec<i64>) -> Self {
        Self { model, sequence_length, theirs }
    }

    /// What the model is asked: the newest items that it knows.
    pub fn asked(&self, past: Past<'_>) -> Asked {
        let (items, times) = past
            .items
            .iter()
            .zip(past.times)
            .map(|(&item, &time)| (self.theirs[item as usize], seconds(time)))
            .filter(|&(item, _)| item > 0)
            .unzip();
        Asked { items, times, now: seconds(past.asked_at(past.items.len())) }.newest(self.sequence_length)
    }
}

/// The index that a model of the items `known` has for each of `items`; 0 for those it does not know.
pub fn indexes(known: &ItemTable, items: &ItemTable) -> Vec<i64> {
    items.ids().iter().map(|id| known.index_of(id).map_or(0, i64::from)).collect()
}

/// What a model of the same items is asked.
pub fn asked(past: &Past<'_>) -> Asked {
    Asked {
        items: past.items.iter().map(|&item| i64::from(item)).collect(),
        times: past.times[..past.items.len()].iter().map(|&time| seconds(time)).collect(),
        now: seconds(past.asked_at(past.items.len())),
    }
}

fn seconds(time_ms: i64) -> i64 {
    time_ms.div_euclid(1000)
}

impl NextItem for OnnxModel {
    fn kind(&self) -> &str {
        "onnx"
    }

    fn score_prefixes(&mut self, past: Past<'_>, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
        for prefixes in prefixes.chunks(BATCH) {
            let histories: Vec<Asked> = prefixes.iter().map(|&prefix| self.asked(past.part(0, prefix))).collect();
            for (&prefix, scores) in prefixes.iter().zip(self.model.scores(&histories)?) {
                // An item that the model does not know is never recommended: a miss.
                let ours: Vec<f32> =
                    self.theirs.iter().map(|&i| if i == 0 { f32::NEG_INFINITY } else { scores[i as usize] }).collect();
                each(prefix, &ours)?;
            }
        }
        Ok(())
    }
}

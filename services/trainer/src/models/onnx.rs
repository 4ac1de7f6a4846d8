//! A model that was brought as ONNX: evaluated through the runtime that serves it.

use rapport_inference::NextItemModel;
use rapport_registry::{Artifact, ItemTable};

use super::{Each, NextItem};
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
        let known = artifact.items()?;
        let theirs = items.ids().iter().map(|id| known.index_of(id).map_or(0, i64::from)).collect();
        let model = NextItemModel::load(&artifact.model_path(), threads)?;
        Ok(Self { model, sequence_length: artifact.manifest().description.sequence_length, theirs })
    }
}

impl NextItem for OnnxModel {
    fn kind(&self) -> &str {
        "onnx"
    }

    fn score_prefixes(&mut self, history: &[u32], prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
        for prefixes in prefixes.chunks(BATCH) {
            let histories: Vec<Vec<i64>> = prefixes
                .iter()
                .map(|&prefix| {
                    let known = history[..prefix].iter().map(|&i| self.theirs[i as usize]).filter(|&i| i > 0);
                    let known: Vec<i64> = known.collect();
                    known[known.len().saturating_sub(self.sequence_length)..].to_vec()
                })
                .collect();
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

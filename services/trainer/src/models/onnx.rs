//! A model that was brought as ONNX: evaluated through the runtime that serves it.

use rapport_inference::{Asked, NextItemModel};
use rapport_registry::{Artifact, ItemTable};

use super::{Each, NextItem, Past};
use crate::{Error, dataset::Dataset};

/// Histories in one run of the model.
const BATCH: usize = 64;

/// What a model calls the items and event types of a data set; 0 is what it does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Theirs {
    /// The model's index of each of the data set's items.
    pub items: Vec<i64>,
    /// The model's number of each of the data set's event types, unknown first.
    pub types: Vec<i64>,
}

impl Theirs {
    /// Of an artifact.
    ///
    /// # Errors
    /// Its table of items cannot be read.
    pub fn of(artifact: &Artifact, data: &Dataset) -> Result<Self, Error> {
        let known = &artifact.manifest().description.event_types;
        let number = |name: &String| known.iter().position(|other| other == name).map_or(0, |at| at as i64 + 1);
        Ok(Self {
            items: indexes(&artifact.items()?, &data.items),
            types: [0].into_iter().chain(data.side.types.iter().map(number)).collect(),
        })
    }

    /// Of a model of this data.
    pub fn own(data: &Dataset) -> Self {
        Self { items: (0..data.width() as i64).collect(), types: (0..=data.side.types.len() as i64).collect() }
    }

    /// Whether the model of so many items calls everything as the data does.
    pub fn same(&self, items: usize) -> bool {
        let same = |numbers: &[i64]| numbers.iter().enumerate().all(|(own, &index)| own as i64 == index);
        // A model that looks at no types knows none.
        let blind = self.types.iter().all(|&number| number == 0);
        items + 1 == self.items.len() && same(&self.items) && (blind || same(&self.types))
    }
}

/// An artifact's own graph, with its own items.
pub struct OnnxModel {
    model: NextItemModel,
    sequence_length: usize,
    theirs: Theirs,
}

impl OnnxModel {
    /// # Errors
    /// The artifact cannot be read or its graph is not a next-item model.
    pub fn open(artifact: &Artifact, data: &Dataset, threads: usize) -> Result<Self, Error> {
        let theirs = Theirs::of(artifact, data)?;
        let model = NextItemModel::load(&artifact.model_path(), threads)?;
        Ok(Self::new(model, artifact.manifest().description.sequence_length, theirs))
    }

    /// A graph that is loaded already.
    pub fn new(model: NextItemModel, sequence_length: usize, theirs: Theirs) -> Self {
        Self { model, sequence_length, theirs }
    }

    /// What the model is asked: the newest items that it knows.
    pub fn asked(&self, past: Past<'_>) -> Asked {
        let mut asked = Asked { now: seconds(past.asked_at(past.items.len())), ..Asked::default() };
        for (place, (&item, &time)) in past.items.iter().zip(past.times).enumerate() {
            let index = self.theirs.items[item as usize];
            if index > 0 {
                asked.items.push(index);
                asked.times.push(seconds(time));
                let kind = past.types.get(place).copied().unwrap_or(0);
                asked.types.push(self.theirs.types.get(kind as usize).copied().unwrap_or(0));
            }
        }
        asked.newest(self.sequence_length)
    }
}

/// The index that a model of the items `known` has for each of `items`; 0 for those it does not know.
fn indexes(known: &ItemTable, items: &ItemTable) -> Vec<i64> {
    items.ids().iter().map(|id| known.index_of(id).map_or(0, i64::from)).collect()
}

/// What a model of the same items is asked.
pub fn asked(past: &Past<'_>) -> Asked {
    Asked {
        items: past.items.iter().map(|&item| i64::from(item)).collect(),
        times: past.times[..past.items.len()].iter().map(|&time| seconds(time)).collect(),
        now: seconds(past.asked_at(past.items.len())),
        types: past.types.iter().map(|&kind| kind.into()).collect(),
        outcome: 0,
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
                let ours: Vec<f32> = self
                    .theirs
                    .items
                    .iter()
                    .map(|&i| if i == 0 { f32::NEG_INFINITY } else { scores[i as usize] })
                    .collect();
                each(prefix, &ours)?;
            }
        }
        Ok(())
    }
}

//! One session of a next-item model.

use std::path::Path;

use ort::value::TensorRef;

use crate::{
    Error,
    graph::Graph,
    raw::{RawInput, RawOutput, Signature},
};

/// ONNX metadata property that holds how many of the newest items the model looks at.
pub const SEQUENCE_LENGTH_PROPERTY: &str = "rapport.sequence_length";

/// The output: scores `[batch, items + 1]`.
const OUTPUT: &str = "scores";

/// A customer's items and the moment of the question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Item indexes from 1, oldest first.
    pub items: Vec<i64>,
    /// When each was taken, in whole seconds. Models that do not look at time do without.
    pub times: Vec<i64>,
    /// When scores are asked for, in whole seconds.
    pub now: i64,
    /// The type of each event as the model numbers them, 0 where it is unknown. Models that do not look at
    /// types do without; empty means that none is known.
    pub types: Vec<i64>,
    /// The type of the event that is asked for; 0 leaves it to the model.
    pub outcome: i64,
}

impl Asked {
    /// For models that do not look at time.
    pub fn of(items: Vec<i64>) -> Self {
        Self { items, ..Self::default() }
    }

    /// The newest `length` items.
    #[must_use]
    pub fn newest(mut self, length: usize) -> Self {
        let surplus = self.items.len().saturating_sub(length);
        self.items.drain(..surplus);
        self.times.drain(..surplus.min(self.times.len()));
        self.types.drain(..surplus.min(self.types.len()));
        self
    }
}

/// A next-item model, loaded and checked against the contract. Calls block; for async callers
/// there is [`crate::Workers`].
#[derive(Debug)]
pub struct NextItemModel {
    graph: Graph,
    width: usize,
}

impl NextItemModel {
    /// Loads `model.onnx`; a call of [`Self::scores`] uses `threads` threads, the caller's included.
    ///
    /// # Errors
    /// The library is not initialised, the file is not a model, or the model has other inputs and
    /// outputs than the contract says.
    pub fn load(path: &Path, threads: usize) -> Result<Self, Error> {
        let graph = Graph::load(path, threads)?;
        let width = graph.columns(OUTPUT, "items + 1")?;
        if width < 2 {
            return Err(Error::Contract { path: path.to_owned(), reason: "it scores no item".into() });
        }
        Ok(Self { graph, width })
    }

    /// Scores for each history: items + 1, index 0 being padding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many of the newest items the model looks at, where it says so; longer histories are cut.
    pub fn sequence_length(&self) -> Option<usize> {
        self.graph.sequence_length
    }

    /// Whether the model wants the times of items.
    pub fn looks_at_time(&self) -> bool {
        self.graph.takes.times
    }

    /// Whether the model wants the types of events.
    pub fn looks_at_types(&self) -> bool {
        self.graph.takes.types
    }

    /// Whether the model can be told which type of event is asked for.
    pub fn takes_outcome(&self) -> bool {
        self.graph.takes.outcome
    }

    /// Scores of every item as the next one, `[histories, items + 1]`; index 0 is minus infinity. A
    /// history may be empty; shorter ones are padded on the left to the longest.
    ///
    /// # Errors
    /// An index that the model does not know, times or types that are missing, or a failure of ONNX Runtime.
    pub fn scores(&mut self, histories: &[Asked]) -> Result<Vec<Vec<f32>>, Error> {
        let mut rows = self.graph.rows(histories, self.width, OUTPUT, self.width)?;
        rows.iter_mut().for_each(|row| row[0] = f32::NEG_INFINITY);
        Ok(rows)
    }
}

impl NextItemModel {
    /// What the graph takes and gives.
    pub fn signature(&self) -> Signature {
        Signature::of(&self.graph.session, self.width)
    }

    /// Runs the graph with its own tensors. They must have passed [`Signature::check`].
    ///
    /// # Errors
    /// ONNX Runtime refuses them.
    pub fn run(&mut self, inputs: &[RawInput]) -> Result<Vec<RawOutput>, Error> {
        let signature = self.signature();
        let failed = |error: ort::Error| Error::Run(error.to_string());
        let mut tensors = Vec::with_capacity(inputs.len());
        for input in inputs {
            let tensor = TensorRef::from_array_view((input.shape.clone(), input.values.as_slice())).map_err(failed)?;
            tensors.push((input.name.as_str(), tensor));
        }
        let given = self.graph.session.run(tensors).map_err(failed)?;
        let outputs = signature.outputs.into_iter().map(|output| {
            let value = given.get(&output.name).ok_or_else(|| Error::Run(format!("no output {}", output.name)))?;
            let (shape, values) = value.try_extract_tensor::<f32>().map_err(failed)?;
            let shape = shape.iter().map(|axis| usize::try_from(*axis).unwrap_or(0)).collect();
            Ok(RawOutput { name: output.name, shape, values: values.to_vec() })
        });
        outputs.collect()
    }
}

//! One session of a next-item model.

use std::path::{Path, PathBuf};

use ort::{
    session::{Session, builder::GraphOptimizationLevel},
    value::{Outlet, TensorElementType, TensorRef, ValueType},
};

use crate::{
    Error, library,
    raw::{RawInput, RawOutput, Signature},
};

/// ONNX metadata property that holds how many of the newest items the model looks at.
pub const SEQUENCE_LENGTH_PROPERTY: &str = "rapport.sequence_length";

pub(crate) const INPUT: &str = "items";
/// Both or neither: for models that look at time.
const TIMES: &str = "times";
const NOW: &str = "now";
/// For models that look at the types of events.
const TYPES: &str = "types";
/// For models that are told which type of event is asked for; only with [`TYPES`].
const OUTCOME: &str = "outcome";
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
    session: Session,
    path: PathBuf,
    width: usize,
    sequence_length: Option<usize>,
    takes: Takes,
}

/// What a model wants beside items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Takes {
    times: bool,
    types: bool,
    outcome: bool,
}

impl NextItemModel {
    /// Loads `model.onnx`; a call of [`Self::scores`] uses `threads` threads, the caller's included.
    ///
    /// # Errors
    /// The library is not initialised, the file is not a model, or the model has other inputs and
    /// outputs than the contract says.
    pub fn load(path: &Path, threads: usize) -> Result<Self, Error> {
        let environment = library::environment()?;
        let failed = |reason: String| Error::Load { path: path.to_owned(), reason };
        let session = Session::builder(environment)
            .map_err(|e| failed(e.to_string()))?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(|e| failed(e.to_string()))?
            .with_intra_threads(threads.max(1))
            .map_err(|e| failed(e.to_string()))?
            // Threads that spin between two requests take the cores from the rest of the service.
            .with_intra_op_spinning(false)
            .map_err(|e| failed(e.to_string()))?
            .commit_from_file(path)
            .map_err(|e| failed(e.to_string()))?;
        let contract = |reason| Error::Contract { path: path.to_owned(), reason };
        let takes = contract_inputs(&session).map_err(contract)?;
        let width = contract_width(&session).map_err(contract)?;
        let sequence_length = session
            .metadata()
            .ok()
            .and_then(|metadata| metadata.custom(SEQUENCE_LENGTH_PROPERTY))
            .and_then(|text| text.parse().ok())
            .filter(|&length| length > 0);
        Ok(Self { session, path: path.to_owned(), width, sequence_length, takes })
    }

    /// Scores for each history: items + 1, index 0 being padding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many of the newest items the model looks at, where it says so; longer histories are cut.
    pub fn sequence_length(&self) -> Option<usize> {
        self.sequence_length
    }

    /// Whether the model wants the times of items.
    pub fn looks_at_time(&self) -> bool {
        self.takes.times
    }

    /// Whether the model wants the types of events.
    pub fn looks_at_types(&self) -> bool {
        self.takes.types
    }

    /// Whether the model can be told which type of event is asked for.
    pub fn takes_outcome(&self) -> bool {
        self.takes.outcome
    }

    /// Scores of every item as the next one, `[histories, items + 1]`; index 0 is minus infinity. A
    /// history may be empty; shorter ones are padded on the left to the longest.
    ///
    /// # Errors
    /// An index that the model does not know, times or types that are missing, or a failure of ONNX Runtime.
    pub fn scores(&mut self, histories: &[Asked]) -> Result<Vec<Vec<f32>>, Error> {
        if histories.is_empty() {
            return Ok(Vec::new());
        }
        let limit = self.sequence_length.unwrap_or(usize::MAX);
        let newest = |history: &Asked| history.items.len().min(limit);
        let length = histories.iter().map(newest).max().unwrap_or(0).max(1);
        let shape = [histories.len(), length];
        let mut items = vec![0_i64; histories.len() * length];
        let mut times = vec![0_i64; if self.takes.times { items.len() } else { 0 }];
        let mut types = vec![0_i64; if self.takes.types { items.len() } else { 0 }];
        for (row, history) in histories.iter().enumerate() {
            let all = &history.items;
            let kept = &all[all.len() - newest(history)..];
            if let Some(&index) = kept.iter().find(|&&i| i < 1 || i.unsigned_abs() as usize >= self.width) {
                return Err(Error::ItemIndex { index, last: self.width - 1 });
            }
            let place = (row + 1) * length - kept.len()..(row + 1) * length;
            items[place.clone()].copy_from_slice(kept);
            let newest = |of: &'_ [i64]| (of.len() == all.len()).then_some(all.len() - kept.len());
            if self.takes.times {
                let from = newest(&history.times).ok_or(Error::TimesMissing)?;
                times[place.clone()].copy_from_slice(&history.times[from..]);
            }
            if self.takes.types && !history.types.is_empty() {
                let from = newest(&history.types).ok_or(Error::TypesMissing)?;
                types[place].copy_from_slice(&history.types[from..]);
            }
        }
        let now: Vec<i64> = histories.iter().map(|history| history.now).collect();
        let outcome: Vec<i64> = histories.iter().map(|history| history.outcome).collect();
        let failed = |error: ort::Error| Error::Run(error.to_string());
        let input = TensorRef::from_array_view((shape, items.as_slice())).map_err(failed)?;
        let mut inputs = ort::inputs![INPUT => input];
        if self.takes.times {
            let times = TensorRef::from_array_view((shape, times.as_slice())).map_err(failed)?;
            let now = TensorRef::from_array_view(([histories.len()], now.as_slice())).map_err(failed)?;
            inputs.extend(ort::inputs![TIMES => times, NOW => now]);
        }
        if self.takes.types {
            let types = TensorRef::from_array_view((shape, types.as_slice())).map_err(failed)?;
            inputs.extend(ort::inputs![TYPES => types]);
        }
        if self.takes.outcome {
            let outcome = TensorRef::from_array_view(([histories.len()], outcome.as_slice())).map_err(failed)?;
            inputs.extend(ort::inputs![OUTCOME => outcome]);
        }
        let outputs = self.session.run(inputs).map_err(failed)?;
        let scores = outputs.get(OUTPUT).ok_or_else(|| Error::Run(format!("no output {OUTPUT}")))?;
        let (shape, scores) = scores.try_extract_tensor::<f32>().map_err(|e| Error::Run(e.to_string()))?;
        let wanted = [histories.len() as i64, self.width as i64];
        if shape[..] != wanted {
            let reason = format!("scores have the shape {shape:?} instead of {wanted:?}");
            return Err(Error::Contract { path: self.path.clone(), reason });
        }
        Ok(scores
            .chunks_exact(self.width)
            .map(|row| {
                let mut row = row.to_vec();
                row[0] = f32::NEG_INFINITY;
                row
            })
            .collect())
    }
}

impl NextItemModel {
    /// What the graph takes and gives.
    pub fn signature(&self) -> Signature {
        Signature::of(&self.session, self.width)
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
        let given = self.session.run(tensors).map_err(failed)?;
        let outputs = signature.outputs.into_iter().map(|output| {
            let value = given.get(&output.name).ok_or_else(|| Error::Run(format!("no output {}", output.name)))?;
            let (shape, values) = value.try_extract_tensor::<f32>().map_err(failed)?;
            let shape = shape.iter().map(|axis| usize::try_from(*axis).unwrap_or(0)).collect();
            Ok(RawOutput { name: output.name, shape, values: values.to_vec() })
        });
        outputs.collect()
    }
}

/// What the model takes, once its inputs are what the contract says.
fn contract_inputs(session: &Session) -> Result<Takes, String> {
    let has = |name: &str| session.inputs().iter().any(|input| input.name() == name);
    let takes = Takes { times: has(TIMES), types: has(TYPES), outcome: has(OUTCOME) };
    let known = [
        (INPUT, 2, true),
        (TIMES, 2, takes.times),
        (NOW, 1, takes.times),
        (TYPES, 2, takes.types || takes.outcome),
        (OUTCOME, 1, takes.outcome),
    ];
    let found = || {
        let inputs = session.inputs().iter().map(|input| format!("{} {:?}", input.name(), input.dtype()));
        inputs.collect::<Vec<String>>().join(", ")
    };
    let wanted = known.iter().filter(|(_, _, wanted)| *wanted);
    for (name, rank, _) in wanted.clone() {
        let input = session.inputs().iter().find(|input| input.name() == *name);
        if input.and_then(|input| rank_of(input, TensorElementType::Int64)) != Some(*rank) {
            return Err(format!("its inputs are {}; want {name}, int64 of {rank} axes", found()));
        }
    }
    if session.inputs().len() != wanted.count() {
        return Err(format!(
            "its inputs are {}; it may have {INPUT}, {TIMES} with {NOW}, {TYPES}, and {OUTCOME} with {TYPES}",
            found()
        ));
    }
    Ok(takes)
}

/// The output's width, once it is what the contract says.
fn contract_width(session: &Session) -> Result<usize, String> {
    let output = session
        .outputs()
        .iter()
        .find(|output| output.name() == OUTPUT)
        .ok_or_else(|| format!("it has no output {OUTPUT}"))?;
    let described = || format!("its output {OUTPUT} is {:?}; want float32 [batch, items + 1]", output.dtype());
    match output.dtype() {
        ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } if shape.len() == 2 => {
            usize::try_from(shape[1]).ok().filter(|&width| width >= 2).ok_or_else(described)
        }
        _ => Err(described()),
    }
}

fn rank_of(outlet: &Outlet, wanted: TensorElementType) -> Option<usize> {
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } if *ty == wanted => Some(shape.len()),
        _ => None,
    }
}

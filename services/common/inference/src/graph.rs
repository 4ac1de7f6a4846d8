//! One session of a graph that takes histories.

use std::path::{Path, PathBuf};

use ort::{
    session::{Session, builder::GraphOptimizationLevel},
    value::{Outlet, TensorElementType, TensorRef, ValueType},
};

use crate::{Asked, Error, library, model::SEQUENCE_LENGTH_PROPERTY};

pub(crate) const INPUT: &str = "items";
/// Both or neither: for models that look at time.
const TIMES: &str = "times";
const NOW: &str = "now";
/// For models that look at the types of events.
const TYPES: &str = "types";
/// For models that are told which type of event is asked for; only with [`TYPES`].
const OUTCOME: &str = "outcome";

/// A graph whose inputs are what the contract says.
#[derive(Debug)]
pub(crate) struct Graph {
    pub session: Session,
    pub path: PathBuf,
    pub sequence_length: Option<usize>,
    pub takes: Takes,
}

/// What a model wants beside items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Takes {
    pub times: bool,
    pub types: bool,
    pub outcome: bool,
}

impl Graph {
    /// Loads a graph; a run of it uses `threads` threads, the caller's included.
    ///
    /// # Errors
    /// The library is not initialised, the file is no model, or its inputs are not those of the contract.
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
        let takes = contract_inputs(&session).map_err(|reason| Error::Contract { path: path.to_owned(), reason })?;
        let sequence_length = session
            .metadata()
            .ok()
            .and_then(|metadata| metadata.custom(SEQUENCE_LENGTH_PROPERTY))
            .and_then(|text| text.parse().ok())
            .filter(|&length| length > 0);
        Ok(Self { session, path: path.to_owned(), sequence_length, takes })
    }

    /// How many columns an output has, once it is float32 `[batch, columns]`.
    pub fn columns(&self, output: &str, wanted: &str) -> Result<usize, Error> {
        let contract = |reason| Error::Contract { path: self.path.clone(), reason };
        let found = self.session.outputs().iter().find(|found| found.name() == output);
        let found = found.ok_or_else(|| contract(format!("it has no output {output}")))?;
        let columns = match found.dtype() {
            ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } if shape.len() == 2 => {
                usize::try_from(shape[1]).ok().filter(|&columns| columns > 0)
            }
            _ => None,
        };
        columns.ok_or_else(|| {
            contract(format!("its output {output} is {:?}; want float32 [batch, {wanted}]", found.dtype()))
        })
    }

    /// The rows of an output for these histories, of which there is one. Items are below `width`.
    ///
    /// # Errors
    /// An index that the model does not know, times or types that are missing, or a failure of ONNX Runtime.
    pub fn rows(
        &mut self,
        histories: &[Asked],
        width: usize,
        output: &str,
        columns: usize,
    ) -> Result<Vec<Vec<f32>>, Error> {
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
            if let Some(&index) = kept.iter().find(|&&i| i < 1 || i.unsigned_abs() as usize >= width) {
                return Err(Error::ItemIndex { index, last: width - 1 });
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
        let rows = outputs.get(output).ok_or_else(|| Error::Run(format!("no output {output}")))?;
        let (shape, rows) = rows.try_extract_tensor::<f32>().map_err(|e| Error::Run(e.to_string()))?;
        let wanted = [histories.len() as i64, columns as i64];
        if shape[..] != wanted {
            let reason = format!("{output} has the shape {shape:?} instead of {wanted:?}");
            return Err(Error::Contract { path: self.path.clone(), reason });
        }
        Ok(rows.chunks_exact(columns).map(<[f32]>::to_vec).collect())
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

fn rank_of(outlet: &Outlet, wanted: TensorElementType) -> Option<usize> {
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } if *ty == wanted => Some(shape.len()),
        _ => None,
    }
}

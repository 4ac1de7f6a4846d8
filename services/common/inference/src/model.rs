//! One session of a next-item model.

use std::path::{Path, PathBuf};

use ort::{
    session::{Session, builder::GraphOptimizationLevel},
    value::{Outlet, TensorElementType, TensorRef, ValueType},
};

use crate::{Error, library};

/// ONNX metadata property that holds how many of the newest items the model looks at.
pub const SEQUENCE_LENGTH_PROPERTY: &str = "rapport.sequence_length";

const INPUT: &str = "items";
const OUTPUT: &str = "scores";

/// A next-item model, loaded and checked against the contract. Calls block; for async callers
/// there is [`crate::Workers`].
#[derive(Debug)]
pub struct NextItemModel {
    session: Session,
    path: PathBuf,
    width: usize,
    sequence_length: Option<usize>,
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
        let width = contract_width(&session).map_err(|reason| Error::Contract { path: path.to_owned(), reason })?;
        let sequence_length = session
            .metadata()
            .ok()
            .and_then(|metadata| metadata.custom(SEQUENCE_LENGTH_PROPERTY))
            .and_then(|text| text.parse().ok())
            .filter(|&length| length > 0);
        Ok(Self { session, path: path.to_owned(), width, sequence_length })
    }

    /// Scores for each history: items + 1, index 0 being padding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many of the newest items the model looks at, where it says so; longer histories are cut.
    pub fn sequence_length(&self) -> Option<usize> {
        self.sequence_length
    }

    /// Scores of every item as the next one, `[histories, items + 1]`; index 0 is minus infinity.
    /// A history holds item indexes from 1, oldest first; it may be empty. Shorter ones are padded
    /// on the left to the longest.
    ///
    /// # Errors
    /// An index that the model does not know, or a failure of ONNX Runtime.
    pub fn scores<H: AsRef<[i64]>>(&mut self, histories: &[H]) -> Result<Vec<Vec<f32>>, Error> {
        if histories.is_empty() {
            return Ok(Vec::new());
        }
        let limit = self.sequence_length.unwrap_or(usize::MAX);
        let newest = |history: &H| history.as_ref().len().min(limit);
        let length = histories.iter().map(newest).max().unwrap_or(0).max(1);
        let mut items = vec![0_i64; histories.len() * length];
        for (row, history) in items.chunks_exact_mut(length).zip(histories) {
            let all = history.as_ref();
            let kept = &all[all.len() - newest(history)..];
            if let Some(&index) = kept.iter().find(|&&i| i < 1 || i.unsigned_abs() as usize >= self.width) {
                return Err(Error::ItemIndex { index, last: self.width - 1 });
            }
            row[length - kept.len()..].copy_from_slice(kept);
        }
        let input = TensorRef::from_array_view(([histories.len(), length], items.as_slice()))
            .map_err(|e| Error::Run(e.to_string()))?;
        let outputs = self.session.run(ort::inputs![INPUT => input]).map_err(|e| Error::Run(e.to_string()))?;
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

/// The output's width, once input and output are what the contract says.
fn contract_width(session: &Session) -> Result<usize, String> {
    let [input] = session.inputs() else {
        return Err(format!("it has {} inputs instead of one", session.inputs().len()));
    };
    if input.name() != INPUT || rank_of(input, TensorElementType::Int64) != Some(2) {
        return Err(format!("its input is {} {:?}; want {INPUT}, int64 [batch, length]", input.name(), input.dtype()));
    }
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

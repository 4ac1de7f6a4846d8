//! An export is believed when ONNX Runtime says what libtorch says.

use std::path::Path;

use rapport_inference::{Asked, NextItemModel, Retrieval};
use rapport_registry::files;

use crate::{
    Error,
    dataset::Dataset,
    models::{NextItem, Past, onnx::asked},
};

/// Difference that is allowed, relative to the larger of 1 and the score.
const ALLOWED: f32 = 1e-4;
/// Lengths of history that are compared, and the histories for each.
const LENGTHS: [usize; 7] = [1, 2, 3, 10, 50, 120, 199];
const HISTORIES: usize = 8;

/// Scores real histories of several lengths with `model` and with the file at `path`, in batches of
/// mixed lengths so that padding is compared too. Returns the largest difference.
///
/// # Errors
/// The file cannot be loaded, has another width, or its scores differ.
pub fn verify(path: &Path, model: &mut dyn NextItem, data: &Dataset, sequence_length: usize) -> Result<f32, Error> {
    let mut exported = NextItemModel::load(path, 1)?;
    if exported.width() != data.width() {
        let reason = format!("it scores {} items instead of {}", exported.width() - 1, data.items.len());
        return Err(rapport_inference::Error::Contract { path: path.into(), reason }.into());
    }
    let histories = histories(data, sequence_length);
    let mut largest = 0.0_f32;
    // Every HISTORIES-th one: each batch holds all lengths.
    for start in 0..HISTORIES.min(histories.len()) {
        let batch: Vec<Past<'_>> = histories.iter().copied().skip(start).step_by(HISTORIES).collect();
        let inputs: Vec<Asked> = batch.iter().map(asked).collect();
        for (history, there) in batch.iter().zip(exported.scores(&inputs)?) {
            let kind = model.kind().to_owned();
            model.score_prefixes(*history, &[history.items.len()], &mut |length, here| {
                let difference = difference(&here[1..], &there[1..]);
                largest = largest.max(difference);
                if difference <= ALLOWED {
                    Ok(())
                } else {
                    Err(Error::ExportDiffers { model: kind.clone(), difference, allowed: ALLOWED, length })
                }
            })?;
        }
    }
    Ok(largest)
}

/// Real histories of several lengths.
fn histories(data: &Dataset, sequence_length: usize) -> Vec<Past<'_>> {
    let lengths = LENGTHS.into_iter().map(|length| length.min(sequence_length));
    let of_length = |length: usize| {
        let long_enough = data.customers.iter().filter(move |c| c.items.len() >= length);
        long_enough.take(HISTORIES).map(move |c| c.past(c.items.len()).part(0, length))
    };
    lengths.flat_map(of_length).collect()
}

/// Compares the two parts in `folder` with the whole graph there, on the histories that it was compared with.
///
/// # Errors
/// A part cannot be loaded, or the scores differ.
pub fn verify_parts(folder: &Path, data: &Dataset, sequence_length: usize) -> Result<(), Error> {
    let parts = Retrieval::open(&folder.join(files::QUERY), &folder.join(files::VECTORS), data.items.len())?;
    let mut whole = NextItemModel::load(&folder.join(files::MODEL), 1)?;
    let histories: Vec<Asked> = histories(data, sequence_length).iter().map(asked).collect();
    parts.agrees_on(&mut whole, &histories)?;
    Ok(())
}

/// The largest difference relative to the larger of 1 and the score; infinite when one is no number.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |largest, (a, b)| {
        let difference = (a - b).abs() / a.abs().max(1.0);
        if difference.is_finite() { difference.max(largest) } else { f32::INFINITY }
    })
}

//! Next-item models made smaller: bytes of a model in, bytes of a smaller one out, and what that
//! costs.
//!
//! export -> [`int8_dynamic`] | [`int8_rows`] | [`combined`] | [`half()`] | [`prune`] -> [`compare`],
//! [`measure`] -> [`accept`]
//!
//! Only what the exporter wrote is changed, and only once. Every graph stays within the standard
//! operators of its operator set, so that whatever served the model before serves it after.
//! [`Trials`] tries a way ([`Way`]) on a model and its data; a run publishes what is accepted, and
//! [`command`] shows all ways.
//!
//! Another road does not change the model but trains a smaller network to answer as it does
//! ([`Distillation`]); it needs the data, time, and the same judgement.
//!
//! | function | what becomes smaller | to |
//! |---|---|---|
//! | [`int8_dynamic`] | weights of products | a quarter |
//! | [`int8_rows`] | tables that items are looked up in | a quarter |
//! | [`combined`] | both | a quarter |
//! | [`half()`] | both, and weights of convolutions and recurrent layers | a half |
//! | [`prune`] | weights of products | only once the file is stored compressed |
//!
//! The scores of one history also depend, a little, on what else is in the batch once products are
//! computed in int8: the range of the activations is taken over the whole batch.

mod acceptance;
pub mod command;
mod difference;
mod distillation;
mod error;
mod exported;
mod half_precision;
mod integer;
mod latency;
mod original;
mod products;
mod pruning;
mod quantise;
mod tables;
mod trial;
mod way;

pub use acceptance::{LARGEST_FALL, accept};
pub use difference::{Difference, TOP, compare};
pub use distillation::{Distillation, Student};
pub use error::Error;
pub use exported::COMPRESSION_PROPERTY;
pub use half_precision::half;
pub use latency::{BATCHES, HISTORY_LENGTH, Latency, Measurement, measure};
pub use products::int8_dynamic;
pub use pruning::prune;
pub use tables::int8_rows;
pub use trial::{Figures, Subject, Trial, Trials};
pub use way::Way;

use exported::Exported;

/// Weights of products and tables of items, both as int8: [`int8_dynamic`] and [`int8_rows`] in one.
/// A model that has only one of the two gets that one.
///
/// # Errors
/// The model is not one of the exporter's, is compressed already, or has neither.
pub fn combined(model: &[u8]) -> Result<Vec<u8>, Error> {
    const KIND: &str = "int8";
    let mut model = Exported::open(model)?;
    let changed = products::quantise(&mut model)? + tables::quantise(&mut model)?;
    if changed == 0 {
        return Err(Error::NothingToCompress { kind: KIND });
    }
    Ok(model.close(KIND))
}

/// Whether the model can be compressed at all.
///
/// # Errors
/// It is not one of the exporter's, or is compressed already.
pub fn check(model: &[u8]) -> Result<(), Error> {
    Exported::open(model).map(drop)
}

//! The ways of compressing, by name.

use std::fmt;

use super::{Error, combined, half, int8_dynamic, int8_rows, prune};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Way {
    Half,
    Int8Dynamic,
    Int8Rows,
    Combined,
    /// With the share of weights that become zero.
    Prune(f64),
}

impl Way {
    /// What is compared on a model.
    pub const ALL: [Self; 7] = [
        Self::Half,
        Self::Int8Dynamic,
        Self::Int8Rows,
        Self::Combined,
        Self::Prune(0.3),
        Self::Prune(0.5),
        Self::Prune(0.8),
    ];

    /// The model, compressed.
    ///
    /// # Errors
    /// As the function of the same name.
    pub fn apply(self, model: &[u8]) -> Result<Vec<u8>, Error> {
        match self {
            Self::Half => half(model),
            Self::Int8Dynamic => int8_dynamic(model),
            Self::Int8Rows => int8_rows(model),
            Self::Combined => combined(model),
            Self::Prune(share) => prune(model, share),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Half => f.write_str("half"),
            Self::Int8Dynamic => f.write_str("int8_dynamic"),
            Self::Int8Rows => f.write_str("int8_rows"),
            Self::Combined => f.write_str("combined"),
            Self::Prune(share) => write!(f, "prune {share}"),
        }
    }
}

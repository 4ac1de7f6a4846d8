//! Durations as people write them in a policy: `30m`, `23h`, `400d`.

use std::time::Duration;

use serde::{Deserialize as _, Deserializer, de::Error as _};

/// For `#[serde(deserialize_with)]`.
pub(crate) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    rapport_runtime::parse_duration(&text).map_err(D::Error::custom)
}

/// Like [`read`]; `none` is no duration.
pub(crate) fn read_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    if text == "none" {
        return Ok(None);
    }
    rapport_runtime::parse_duration(&text).map(Some).map_err(|error| D::Error::custom(format!("{error}, or none")))
}

use std::time::Duration;

use serde::Deserialize;

/// Which event times are believed. A wrong client clock is corrected before these rules are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Time {
    /// Further ahead of the moment of receipt than this, a time cannot be right in any time zone.
    #[serde(deserialize_with = "crate::duration::read")]
    pub future: Duration,
    /// Older than this is ancient; `none` believes any past.
    #[serde(deserialize_with = "crate::duration::read_or_none")]
    pub oldest: Option<Duration>,
    pub on_future: OnFuture,
    pub on_ancient: OnAncient,
}

/// What becomes of an event from the future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFuture {
    /// It happened when it was received.
    #[default]
    ReceiveTime,
    /// A dead letter.
    Refuse,
}

/// What becomes of an ancient event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnAncient {
    /// It stays as it is, with an observation `time:ancient`.
    #[default]
    Mark,
    /// A dead letter.
    Refuse,
}

impl Default for Time {
    fn default() -> Self {
        Self {
            // PostHog's bound.
            future: Duration::from_secs(23 * 3600),
            oldest: None,
            on_future: OnFuture::default(),
            on_ancient: OnAncient::default(),
        }
    }
}

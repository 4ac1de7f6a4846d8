//! How a command of this binary divides its data: what is learned from, what chooses, what judges.

use crate::{
    Error,
    card::PROTOCOL,
    dataset::{Dataset, Split, last_liked},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// One moment for all: 80 % of events train, 10 % validate, 10 % test
    Temporal,
    /// Each customer's last item is the test, the one before it the validation
    LeaveOneOut,
    /// Each customer's last item rated --liked-from or more is the test, the last such one before it the
    /// validation; all else is known, what came later and was liked less included
    LastLiked,
}

/// Flags of every command that divides data.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct ProtocolArgs {
    /// How data is divided
    #[arg(long, value_enum, default_value_t = Protocol::Temporal)]
    pub protocol: Protocol,

    /// The lowest rating that means "liked", for last-liked
    #[arg(long, default_value_t = 4.0, value_name = "RATING")]
    liked_from: f32,
}

impl ProtocolArgs {
    /// The data, perhaps rearranged, and its parts.
    ///
    /// # Errors
    /// The data cannot be split this way.
    pub(crate) fn split(&self, data: Dataset) -> Result<(Dataset, Split), Error> {
        match self.protocol {
            Protocol::Temporal => Split::by_time(&data).map(|split| (data, split)),
            Protocol::LeaveOneOut => Split::leave_one_out(&data).map(|split| (data, split)),
            Protocol::LastLiked => last_liked(&data, self.liked_from),
        }
    }

    /// For a person.
    pub(crate) fn described(&self) -> String {
        match self.protocol {
            Protocol::Temporal => PROTOCOL.into(),
            Protocol::LeaveOneOut => format!(
                "Leave one out: each customer's last item is the test, the one before it the validation. {FULL_RANKING}"
            ),
            Protocol::LastLiked => format!(
                "The last item that each customer rated {} or more is the test, the last such one of the others the \
                 validation. It is predicted from all other events of the customer in their order, those after it \
                 included. {FULL_RANKING}",
                self.liked_from
            ),
        }
    }
}

const FULL_RANKING: &str = "It is ranked among all items that the customer does not have yet (full ranking).";

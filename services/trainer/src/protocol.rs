//! How a command of this binary divides its data: what is learned from, what chooses, what judges.

use std::path::PathBuf;

use crate::{
    Error,
    card::PROTOCOL,
    dataset::{Dataset, Split, by_customer, items_file, last_liked},
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
    /// Customers in --folds parts: the last items of each part's customers are asked of models that learned
    /// from the others alone
    KFold,
}

/// Flags of every command that divides data.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ProtocolArgs {
    /// How data is divided
    // Kafka's settings have a "protocol" too.
    #[arg(id = "evaluation_protocol", long = "protocol", value_enum, default_value_t = Protocol::Temporal)]
    pub protocol: Protocol,

    /// The lowest rating that means "liked", for last-liked
    #[arg(long, default_value_t = 4.0, value_name = "RATING")]
    liked_from: f32,

    /// Parts of k-fold; a command that judges once takes the first
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=100))]
    folds: u16,

    /// Event type that is asked for in validation and test; what is learned from stays. All types when not set
    #[arg(long, value_name = "TYPE")]
    asked: Option<String>,

    /// File of items with a header that names a column "item" and a column "category" (or "class"): what it
    /// says takes the place of the categories of events
    #[arg(long, value_name = "FILE")]
    items: Option<PathBuf>,
}

/// Who is in which fold. Fixed, so that runs with other seeds are judged on the same people.
const FOLD_SEED: u64 = 42;

impl ProtocolArgs {
    /// The data, perhaps rearranged, and its parts: several ways for k-fold, one for the others.
    ///
    /// # Errors
    /// The data cannot be split this way.
    pub(crate) fn splits(&self, mut data: Dataset) -> Result<(Dataset, Vec<Split>), Error> {
        if let Some(path) = &self.items {
            items_file::categories(path, &mut data)?;
        }
        let (data, splits) = self.divided(data)?;
        let Some(asked) = &self.asked else { return Ok((data, splits)) };
        let splits = splits.into_iter().map(|split| split.asking_for(&data, asked)).collect::<Result<_, _>>()?;
        Ok((data, splits))
    }

    fn divided(&self, data: Dataset) -> Result<(Dataset, Vec<Split>), Error> {
        let splits = match self.protocol {
            Protocol::Temporal => vec![Split::by_time(&data)?],
            Protocol::LeaveOneOut => vec![Split::leave_one_out(&data)?],
            Protocol::LastLiked => {
                let (data, split) = last_liked(&data, self.liked_from)?;
                return Ok((data, vec![split]));
            }
            Protocol::KFold => by_customer(&data, self.folds.into(), FOLD_SEED)?,
        };
        Ok((data, splits))
    }

    /// The data, perhaps rearranged, and the only or the first way to divide it.
    ///
    /// # Errors
    /// The data cannot be split this way.
    pub(crate) fn split(&self, data: Dataset) -> Result<(Dataset, Split), Error> {
        let (data, mut splits) = self.splits(data)?;
        Ok((data, splits.swap_remove(0)))
    }

    /// For a person.
    pub(crate) fn described(&self) -> String {
        match &self.asked {
            Some(asked) => format!("{} Only events of type {asked:?} are asked for.", self.protocol()),
            None => self.protocol(),
        }
    }

    fn protocol(&self) -> String {
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
            Protocol::KFold => format!(
                "{}-fold cross-validation by customer: the last item of each customer of this fold is the test, asked \
                 from the customer's earlier items of models that learned from other customers alone. One in eight of \
                 the others is held back in the same way to choose by. {FULL_RANKING}",
                self.folds
            ),
        }
    }
}

const FULL_RANKING: &str = "It is ranked among all items that the customer does not have yet (full ranking).";

//! Where a ridge's sums come from: added up over all customers, or, where they are kept, those of the whole
//! log without what is held out.

use std::sync::Arc;

use super::{Statistics, Sums};
use crate::{Error, dataset::Dataset, kept::Kept, models::Task, progress::Progress};

pub(super) enum Source {
    /// Every history is read again.
    Histories,
    /// Sums of the whole log, of which held-out events are taken out again: exactly, up to rounding.
    Kept(Arc<Kept>),
}

impl Source {
    /// The kept sums where there are some that fit the data and the recipe; why not is told.
    pub fn of(task: &Task<'_>, decays: &[f64]) -> Self {
        let Some(kept) = task.kept else { return Self::Histories };
        match kept.fits(task.data, decays) {
            Ok(()) => Self::Kept(Arc::clone(kept)),
            Err(reason) => {
                let message = format!("the kept sums are not used: {reason}");
                task.watch.report(Progress::note("fit ridge", 0.0, message));
                Self::Histories
            }
        }
    }

    /// For a person.
    pub fn told(&self) -> String {
        match self {
            Self::Histories => "summing up the statistics".into(),
            Self::Kept(kept) => format!("taking the kept sums of {} events", kept.events()),
        }
    }

    /// The statistics of the first `until` events of each customer.
    pub fn statistics(
        &self,
        data: &Dataset,
        until: &[usize],
        decays: &[f64],
        stop: &dyn Fn() -> bool,
    ) -> Result<Statistics, Error> {
        let Self::Kept(kept) = self else {
            let histories: Vec<&[u32]> =
                data.customers.iter().zip(until).map(|(customer, &until)| &customer.items[..until]).collect();
            return Statistics::collect(&histories, data.width(), decays, stop);
        };
        let mut sums: Sums = kept.sums(data)?;
        for (customer, &until) in data.customers.iter().zip(until) {
            if stop() {
                return Err(Error::Cancelled);
            }
            sums.subtract(&customer.items, until);
        }
        Statistics::of(&sums)
    }
}

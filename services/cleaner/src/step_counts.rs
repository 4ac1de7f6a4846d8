//! What every step did, counted locally and told once a batch.

use std::mem::take;

/// The steps, in the order that a record takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Tenant,
    Decode,
    Validate,
    Normalise,
    Time,
    Consent,
    Identity,
    Privacy,
    Bots,
    Enrich,
}

impl Step {
    const ALL: [Self; 10] = [
        Self::Tenant,
        Self::Decode,
        Self::Validate,
        Self::Normalise,
        Self::Time,
        Self::Consent,
        Self::Identity,
        Self::Privacy,
        Self::Bots,
        Self::Enrich,
    ];

    /// As metrics and dead letters name it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Decode => "decode",
            Self::Validate => "validate",
            Self::Normalise => "normalise",
            Self::Time => "time",
            Self::Consent => "consent",
            Self::Identity => "identity",
            Self::Privacy => "privacy",
            Self::Bots => "bots",
            Self::Enrich => "enrich",
        }
    }
}

/// What a step did with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing was to be done, or nothing that is worth a number.
    Passed,
    /// The time was mended, fields were removed, visitors merged, a machine marked, a visit told.
    Changed,
    /// A rule that only observes was broken.
    Observed,
    /// A dead letter.
    Refused,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Passed, Self::Changed, Self::Observed, Self::Refused];

    const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Changed => "changed",
            Self::Observed => "observed",
            Self::Refused => "refused",
        }
    }
}

/// Counts of one batch.
#[derive(Debug, Default)]
pub(crate) struct StepCounts {
    counts: [[u64; 4]; 10],
}

impl StepCounts {
    pub(crate) fn add(&mut self, step: Step, outcome: Outcome) {
        self.counts[step as usize][outcome as usize] += 1;
    }

    #[cfg(test)]
    pub(crate) fn of(&self, step: Step, outcome: Outcome) -> u64 {
        self.counts[step as usize][outcome as usize]
    }

    /// Adds everything to `rapport_cleaner_step_total{step,outcome}` and begins anew. Records of a
    /// transaction that is given up are judged, and counted, again.
    pub(crate) fn tell(&mut self) {
        let counts = take(&mut self.counts);
        for step in Step::ALL {
            for outcome in Outcome::ALL {
                let count = counts[step as usize][outcome as usize];
                if count > 0 {
                    count_of(step, outcome).increment(count);
                }
            }
        }
    }

    /// Shows every series from the start.
    pub(crate) fn register() {
        for step in Step::ALL {
            for outcome in Outcome::ALL {
                count_of(step, outcome).increment(0);
            }
        }
    }
}

fn count_of(step: Step, outcome: Outcome) -> metrics::Counter {
    metrics::counter!("rapport_cleaner_step_total", "step" => step.name(), "outcome" => outcome.name())
}

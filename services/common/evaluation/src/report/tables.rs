//! The tables that an evaluation usually wants, from the types that hold their numbers.

use super::{Table, limits, number};
use crate::{Bootstrap, Confusion, Drift, Error, Metric, RankingComparison, RankingScores, Segment, Stability, holm};

impl Table {
    /// One row per model, one column per metric at a cutoff: the mean over users and its interval.
    ///
    /// # Errors
    /// As [`RankingScores::interval`].
    pub fn ranking(
        caption: impl Into<String>,
        metrics: &[(Metric, usize)],
        models: &[(&str, &RankingScores)],
        bootstrap: &Bootstrap,
    ) -> Result<Self, Error> {
        let names: Vec<String> = metrics.iter().map(|(metric, k)| at_cutoff(*metric, *k)).collect();
        let columns: Vec<&str> = ["model", "users"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let mut table = Self::new(caption, &columns);
        for (name, scores) in models {
            let mut cells = vec![(*name).to_owned(), scores.users().to_string()];
            for (metric, k) in metrics {
                let interval = scores.interval(*metric, *k, bootstrap)?;
                cells.push(format!("{} {}", number(interval.estimate), limits(&interval)));
            }
            table.row(cells);
        }
        Ok(table)
    }

    /// One row per comparison: the difference, its interval, and both p-values, each adjusted by Holm's
    /// method over the rows of this table.
    ///
    /// # Errors
    /// No comparison.
    pub fn comparisons(caption: impl Into<String>, rows: &[(&str, RankingComparison)]) -> Result<Self, Error> {
        let adjusted =
            |part: fn(&RankingComparison) -> f64| holm(&rows.iter().map(|(_, c)| part(c)).collect::<Vec<_>>());
        let bootstrap = adjusted(|comparison| comparison.difference.p_value)?;
        let wilcoxon = adjusted(|comparison| comparison.wilcoxon.p_value)?;
        let columns = ["comparison", "metric", "difference", "interval", "bootstrap p (Holm)", "Wilcoxon p (Holm)"];
        let mut table = Self::new(caption, &columns).with_text(&["metric"]);
        for ((name, comparison), (bootstrap, wilcoxon)) in rows.iter().zip(bootstrap.iter().zip(wilcoxon)) {
            let interval = &comparison.difference.interval;
            table.row([
                (*name).to_owned(),
                at_cutoff(comparison.metric, comparison.cutoff),
                number(interval.estimate),
                limits(interval),
                number(*bootstrap),
                number(wilcoxon),
            ]);
        }
        Ok(table)
    }

    /// One row per segment: counts, estimate and interval; a small group is marked, a metric that is
    /// undefined says why.
    pub fn by_segment(caption: impl Into<String>, metric: &str, segments: &[Segment]) -> Self {
        let mut table =
            Self::new(caption, &["group", "rows", "customers", metric, "interval"]).with_text(&["interval"]);
        for segment in segments {
            let label = if segment.small { format!("{} (small)", segment.label) } else { segment.label.clone() };
            let (estimate, limits) = match &segment.interval {
                Ok(interval) => (number(interval.estimate), limits(interval)),
                Err(reason) => ("-".to_owned(), reason.to_string()),
            };
            table.row([label, segment.rows.to_string(), segment.customers.to_string(), estimate, limits]);
        }
        table
    }

    /// Row = truth, column = prediction; classes without a name are numbered.
    pub fn confusion(caption: impl Into<String>, classes: &[&str], confusion: &Confusion) -> Self {
        let name = |class: usize| classes.get(class).map_or_else(|| class.to_string(), |name| (*name).to_owned());
        let names: Vec<String> = (0..confusion.counts().len()).map(name).collect();
        let columns: Vec<&str> = std::iter::once("truth").chain(names.iter().map(String::as_str)).collect();
        let mut table = Self::new(caption, &columns);
        for (truth, counts) in names.iter().zip(confusion.counts()) {
            table.row(std::iter::once(truth.clone()).chain(counts.iter().map(usize::to_string)));
        }
        table
    }

    /// One row per feature: the index and what it means by custom.
    pub fn drift(caption: impl Into<String>, features: &[(&str, &Stability)]) -> Self {
        let mut table = Self::new(caption, &["feature", "PSI", "reading"]).with_text(&["reading"]);
        for (name, stability) in features {
            let reading = match stability.drift() {
                Drift::Stable => "stable",
                Drift::Moderate => "moderate shift",
                Drift::Significant => "significant shift",
            };
            table.row([*name, &number(stability.index), reading]);
        }
        table
    }
}

/// `NDCG@10`, or `MRR` where there is no cutoff.
fn at_cutoff(metric: Metric, cutoff: usize) -> String {
    if cutoff == usize::MAX { metric.name().to_owned() } else { format!("{}@{cutoff}", metric.name()) }
}

//! Several runs of the same models: how much the figures depend on the seed, or on who is judged.

use rapport_evaluation::report::{Table, number};

use crate::evaluate::Figures;

/// The test figures of each model, run by run.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    models: Vec<(String, Vec<Figures>)>,
}

impl Spread {
    pub(crate) fn add(&mut self, model: &str, figures: Figures) {
        match self.models.iter_mut().find(|(name, _)| name == model) {
            Some((_, all)) => all.push(figures),
            None => self.models.push((model.to_owned(), vec![figures])),
        }
    }

    /// A row for each model, the best mean first; deviations are of single runs (n - 1).
    pub(crate) fn table(&self, over: &str) -> Table {
        let columns = ["model", "runs", "NDCG@10", "+-", "HR@10", "+-", "MRR", "+-"];
        let mut table = Table::new(format!("Mean and standard deviation over {over}"), &columns);
        let mut models: Vec<_> = self.models.iter().map(|(name, all)| (name, all, of(all, |f| f.ndcg))).collect();
        models.sort_by(|a, b| b.2.0.total_cmp(&a.2.0));
        for (name, all, ndcg) in models {
            let numbers = [ndcg, of(all, |f| f.hit_rate), of(all, |f| f.mrr)];
            let cells = numbers.into_iter().flat_map(|(mean, deviation)| [number(mean), number(deviation)]);
            table.row([name.clone(), all.len().to_string()].into_iter().chain(cells));
        }
        table
    }
}

/// Mean and standard deviation; the deviation of one run is no number.
fn of(figures: &[Figures], value: fn(&Figures) -> f64) -> (f64, f64) {
    let n = figures.len() as f64;
    let mean = figures.iter().map(value).sum::<f64>() / n;
    let variance = figures.iter().map(|f| (value(f) - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_mean_stands_first_with_the_deviation_of_single_runs() {
        let figures = |ndcg| Figures { ndcg, hit_rate: 0.5, mrr: 0.25, coverage: 1.0, cases: 10 };
        let mut spread = Spread::default();
        for (model, ndcg) in [("weak", 0.1), ("strong", 0.2), ("weak", 0.1), ("strong", 0.4)] {
            spread.add(model, figures(ndcg));
        }
        let rows = spread.table("two folds").rows;
        assert_eq!(rows[0][..4], ["strong", "2", "0.3000", "0.1414"]);
        assert_eq!(rows[1][..4], ["weak", "2", "0.1000", "0"]);
    }
}

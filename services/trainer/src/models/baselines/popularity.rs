//! The floor: what everybody takes, or took lately.

use crate::{
    Error,
    dataset::{Dataset, Split},
    models::{Each, NextItem, Past},
};

/// Scores an item by how often it occurs.
#[derive(Debug)]
pub struct Popularity {
    kind: &'static str,
    scores: Vec<f32>,
}

impl Popularity {
    /// `width` is the number of items + 1.
    pub fn fit(histories: &[&[u32]], width: usize) -> Self {
        let mut scores = vec![0.0; width];
        histories.iter().copied().flatten().for_each(|&item| scores[item as usize] += 1.0);
        Self { kind: "popularity", scores }
    }

    /// Counts the last `window_ms` of the training part; popularity over all of it (below one event)
    /// orders what did not occur in them.
    pub fn lately(data: &Dataset, split: &Split, window_ms: i64) -> Self {
        let mut all = Self::fit(&split.training(data), data.width());
        let total: f32 = all.scores.iter().sum::<f32>() + 1.0;
        all.scores.iter_mut().for_each(|count| *count /= total);
        let trained = || data.customers.iter().zip(&split.train).map(|(customer, &n)| (customer, n));
        let end = trained().filter_map(|(customer, n)| customer.times[..n].last().copied()).max().unwrap_or(0);
        for (customer, n) in trained() {
            let from = customer.times[..n].partition_point(|&time| time <= end - window_ms);
            customer.items[from..n].iter().for_each(|&item| all.scores[item as usize] += 1.0);
        }
        Self { kind: "popularity-7d", ..all }
    }
}

impl NextItem for Popularity {
    fn kind(&self) -> &str {
        self.kind
    }

    fn score_prefixes(&mut self, _past: Past<'_>, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
        prefixes.iter().try_for_each(|&prefix| each(prefix, &self.scores))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Builder, Limits};

    #[test]
    fn what_is_popular_lately_comes_before_what_always_was() {
        let mut builder = Builder::new(Limits { events: 1000, items: 100 });
        let day = 24 * 3600 * 1000;
        for i in 0..40 {
            let (item, time) = if i < 30 { ("classic", i * day / 4) } else { ("trend", (30 + i) * day / 4) };
            builder.add(&(i % 7).to_string(), item, time, 0, i).unwrap();
        }
        builder.add("0", "rare", 1, 0, 99).unwrap();
        let data = builder.finish("demo").unwrap();
        let all =
            Split { train: data.customers.iter().map(|c| c.items.len()).collect(), ..Split::by_time(&data).unwrap() };
        let score = |model: &Popularity, id: &str| model.scores[data.items.index_of(id).unwrap() as usize];
        let lately = Popularity::lately(&data, &all, 7 * day);
        assert!(score(&lately, "trend") > score(&lately, "classic"));
        assert!(score(&lately, "classic") > score(&lately, "rare"));
        let always = Popularity::fit(&all.training(&data), data.width());
        assert!(score(&always, "classic") > score(&always, "trend"));
    }
}

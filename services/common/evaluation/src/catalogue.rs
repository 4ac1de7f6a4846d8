//! What a set of recommendation lists does to the catalogue: coverage, popularity bias, diversity.

use crate::Error;
use crate::input::{finite, not_empty};

/// How often each item was recommended, beside how popular it was in training.
#[derive(Debug, Clone, PartialEq)]
pub struct Exposure {
    recommended: Vec<u64>,
    popularity: Vec<u64>,
    total: u64,
}

impl Exposure {
    /// `lists` holds one list of item indices per user; `popularity` `[items]` is the number of
    /// training interactions of every item of the catalogue.
    ///
    /// # Errors
    /// An empty catalogue, nothing recommended, or an item outside the catalogue.
    pub fn of<L: AsRef<[usize]>>(lists: &[L], popularity: &[u64]) -> Result<Self, Error> {
        not_empty("items in the catalogue", popularity)?;
        let mut recommended = vec![0; popularity.len()];
        let mut total = 0;
        for item in lists.iter().flat_map(|list| list.as_ref()) {
            let count = recommended.get_mut(*item);
            *count.ok_or(Error::ItemOutOfRange { item: *item, items: popularity.len() })? += 1;
            total += 1;
        }
        if total == 0 {
            return Err(Error::Empty("recommended items"));
        }
        Ok(Self { recommended, popularity: popularity.to_vec(), total })
    }

    /// The share of the catalogue that appears in any list (Herlocker et al., TOIS 2004).
    pub fn catalogue_coverage(&self) -> f64 {
        let shown = self.recommended.iter().filter(|count| **count > 0).count();
        shown as f64 / self.recommended.len() as f64
    }

    /// The Gini index of exposure over the whole catalogue: 0 when every item is shown equally often,
    /// `(items - 1)/items` when one item takes every place (Fleder and Hosanagar, 2009).
    pub fn gini(&self) -> f64 {
        let mut counts = self.recommended.clone();
        counts.sort_unstable();
        let n = counts.len() as f64;
        let weighted: f64 = counts.iter().enumerate().map(|(i, c)| (2.0 * (i + 1) as f64 - n - 1.0) * *c as f64).sum();
        weighted / (n * self.total as f64)
    }

    /// Mean of `ln(1 + popularity)` over all recommended places: the average recommendation popularity
    /// (ARP; Yin et al., VLDB 2012) on the log scale, so that one blockbuster does not decide it.
    pub fn mean_log_popularity(&self) -> f64 {
        let pairs = self.recommended.iter().zip(&self.popularity);
        pairs.map(|(shown, popularity)| *shown as f64 * (*popularity as f64).ln_1p()).sum::<f64>() / self.total as f64
    }

    /// The share of places that went to the short head: the `head` most popular share of the
    /// catalogue (0.2 by custom), at least one item. One minus it is the long-tail share (APLT;
    /// Abdollahpouri et al., FLAIRS 2019). Items of equal popularity at the border count as head by
    /// their index.
    ///
    /// # Errors
    /// A `head` outside 0..=1.
    pub fn head_share(&self, head: f64) -> Result<f64, Error> {
        if !(0.0..=1.0).contains(&head) {
            return Err(Error::Argument { name: "head", value: head.to_string(), rule: "a share in 0..=1" });
        }
        let size = ((head * self.popularity.len() as f64).round() as usize).max(1);
        let mut items: Vec<(&u64, &u64)> = self.popularity.iter().zip(&self.recommended).collect();
        items.sort_by(|a, b| b.0.cmp(a.0));
        let shown: u64 = items.iter().take(size).map(|(_, shown)| **shown).sum();
        Ok(shown as f64 / self.total as f64)
    }
}

/// One minus the mean similarity of all pairs of a list (Smyth and McClave 2001; Ziegler et al. 2005).
/// `similarity` is symmetric, such as the cosine of two item embeddings.
///
/// # Errors
/// Fewer than 2 items, or a similarity that is not finite.
pub fn intra_list_diversity<T>(list: &[T], similarity: impl Fn(&T, &T) -> f64) -> Result<f64, Error> {
    if list.len() < 2 {
        return Err(Error::TooFew { what: "items in the list", have: list.len(), need: 2 });
    }
    let pairs = list.iter().enumerate().flat_map(|(i, a)| list.iter().skip(i + 1).map(move |b| (a, b)));
    let similarities: Vec<f64> = pairs.map(|(a, b)| similarity(a, b)).collect();
    finite("similarity of pair", &similarities)?;
    Ok(1.0 - crate::input::mean(&similarities))
}

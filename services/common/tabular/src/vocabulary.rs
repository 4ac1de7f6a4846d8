use serde::{Deserialize, Serialize};

use crate::Error;

/// The categories that a model knows, learnt from its training rows. Code 0 is for all others; the
/// category at index i has code i + 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vocabulary {
    /// In byte order, so that a code is found by bisection and does not depend on the row order.
    categories: Vec<String>,
}

impl Vocabulary {
    /// The categories of the given rows; beyond `most`, the most frequent ones (ties: byte order).
    pub fn learn(dictionary: &[String], codes: &[u32], rows: &[u32], most: usize) -> Self {
        let mut counts = vec![0u64; dictionary.len()];
        for &row in rows {
            counts[codes[row as usize] as usize] += 1;
        }
        let mut seen: Vec<_> = dictionary.iter().zip(counts).filter(|(_, count)| *count > 0).collect();
        seen.sort_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
        seen.truncate(most);
        let mut categories: Vec<String> = seen.into_iter().map(|(category, _)| category.clone()).collect();
        categories.sort();
        Self { categories }
    }

    pub fn len(&self) -> usize {
        self.categories.len()
    }

    /// For each entry of a table's dictionary, the model's code.
    pub fn codes(&self, dictionary: &[String]) -> Vec<usize> {
        let code = |category: &String| self.categories.binary_search(category).map_or(0, |index| index + 1);
        dictionary.iter().map(code).collect()
    }

    /// A stored vocabulary must be in strict byte order.
    pub fn check(&self) -> Result<(), Error> {
        if self.categories.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(Error::Corrupt("vocabulary out of order")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_training_rows_teach_and_the_frequent_categories_stay() {
        let dictionary = ["b", "a", "c", "held out"].map(String::from);
        let codes = [0, 0, 1, 2, 2, 3];
        let all = Vocabulary::learn(&dictionary, &codes, &[0, 1, 2, 3, 4], 255);
        assert_eq!(all.codes(&dictionary), [2, 1, 3, 0]);
        let two = Vocabulary::learn(&dictionary, &codes, &[0, 1, 2, 3, 4], 2);
        assert_eq!(two.codes(&dictionary), [1, 0, 2, 0]);
    }
}

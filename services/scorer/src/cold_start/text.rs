//! The text of an item as a vector of its words: weighed by how rare they are in the catalog, of length 1.

use xxhash_rust::xxh3::xxh3_64;

/// Words of an item that count: those of the title first, then of the categories, then of the description.
pub const MOST_TERMS: usize = 48;

/// An item's words, each by a hash, each once, in rising order. Two words with one hash are taken for one:
/// of a hundred thousand words about one has a twin.
pub type Terms = Box<[u32]>;

/// Words with their weights, in the order of [`Terms`]; the squares add up to 1, or there are none.
pub type Vector = Vec<(u32, f32)>;

/// The words of an item.
pub fn terms(title: &str, categories: &[String], description: &str) -> Terms {
    let texts = std::iter::once(title).chain(categories.iter().map(String::as_str)).chain([description]);
    let words = texts.flat_map(|text| text.split(|c: char| !c.is_alphanumeric())).filter(|word| !word.is_empty());
    let mut terms: Vec<u32> = Vec::with_capacity(16);
    for word in words {
        if terms.len() == MOST_TERMS {
            break;
        }
        let term = hash(&word.to_lowercase());
        if !terms.contains(&term) {
            terms.push(term);
        }
    }
    terms.sort_unstable();
    terms.into()
}

/// The lower half of the hash: enough to tell words apart.
fn hash(word: &str) -> u32 {
    (xxh3_64(word.as_bytes()) & u64::from(u32::MAX)) as u32
}

/// The vector of an item's words, in a catalog of `items`, of which `with` counts those with a word.
pub fn vector(terms: &[u32], items: usize, with: impl Fn(u32) -> usize) -> Vector {
    let weighed = terms.iter().map(|term| (*term, rarity(items, with(*term))));
    let mut vector: Vector = weighed.filter(|(_, weight)| *weight > 0.0).collect();
    let length = vector.iter().map(|(_, weight)| weight * weight).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|(_, weight)| *weight /= length);
    }
    vector
}

/// The inverse document frequency of BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework",
/// 2009), plus one under the logarithm so that a word of nearly all items weighs little and not less than
/// nothing.
fn rarity(items: usize, with: usize) -> f32 {
    let (items, with) = (items as f32, with.min(items) as f32);
    ((items - with + 0.5) / (with + 0.5)).ln_1p()
}

/// The cosine of two vectors, from 0 to 1.
pub fn cosine(one: &[(u32, f32)], other: &[(u32, f32)]) -> f32 {
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    let mut sum = 0.0;
    while let (Some((a, x)), Some((b, y))) = (one.peek(), other.peek()) {
        match a.cmp(b) {
            std::cmp::Ordering::Less => drop(one.next()),
            std::cmp::Ordering::Greater => drop(other.next()),
            std::cmp::Ordering::Equal => {
                sum += x * y;
                one.next();
                other.next();
            }
        }
    }
    f32::min(sum, 1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_its_words_whatever_their_case_and_what_stands_between_them() {
        let of = |title: &str| terms(title, &[], "");
        assert_eq!(of("The Empire, strikes-back"), of("strikes THE back empire... empire"));
        assert_eq!(terms("Der Ölprinz", &["Western".into()], "ölprinz"), of("western der ÖLPRINZ"));
        assert!(of(" -- ").is_empty());
    }

    #[test]
    fn a_long_text_is_cut_and_the_title_comes_first() {
        let long: Vec<String> = (0..10_000).map(|n| format!("w{n}")).collect();
        let cut = terms("title", &["category".into()], &long.join(" "));
        assert_eq!(cut.len(), MOST_TERMS);
        assert!(terms("title", &["category".into()], "").iter().all(|term| cut.contains(term)));
    }

    #[test]
    fn rare_words_count_more_than_common_ones() {
        // In a catalog of 100, "the" is everywhere, "jedi" in two items.
        let the = terms("the", &[], "")[0];
        let with = |term| if term == the { 100 } else { 2 };
        let of = |title: &str| vector(&terms(title, &[], ""), 100, with);
        assert!(cosine(&of("the jedi"), &of("return of jedi")) > 0.5);
        assert!(cosine(&of("the jedi"), &of("the piano")) < 0.01);
    }

    proptest! {
        #[test]
        fn cosines_lie_between_nothing_and_one_and_a_text_is_like_itself(
            one in "[a-f ]{0,30}", other in "[a-f ]{0,30}", items in 1_usize..1_000, seed in 1_usize..1_000,
        ) {
            let with = |term: u32| term as usize % seed;
            let (one, other) =
                (vector(&terms(&one, &[], ""), items, with), vector(&terms(&other, &[], ""), items, with));
            let like = cosine(&one, &other);
            prop_assert!((0.0..=1.0).contains(&like));
            prop_assert_eq!(like, cosine(&other, &one));
            prop_assert!(one.is_empty() || cosine(&one, &one) > 0.999);
        }
    }
}

//! What the scan finds is what scoring everything finds, to the bit and in the same order.

#![allow(clippy::unwrap_used)] // helpers of tests

use proptest::prelude::*;
use rapport_retrieval::{Error, Found, ItemVectors, Kernel};

/// Everything scored, sorted, cut.
fn by_scoring(vectors: &ItemVectors, query: &[f32], count: usize, admits: impl Fn(usize) -> bool) -> Vec<Found> {
    let mut all: Vec<Found> = (1..vectors.width())
        .filter(|&index| admits(index))
        .map(|index| Found { index: index as u32, score: vectors.score(query, index).unwrap() })
        .filter(|found| found.score.is_finite())
        .collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
    all.truncate(count);
    all
}

fn kernels() -> impl Iterator<Item = Kernel> {
    Kernel::ALL.into_iter().filter(|kernel| kernel.is_there())
}

/// Components as trained vectors have them, whole numbers (many equal scores), and rows of zeros, of one large
/// component, and far from the usual size.
fn row(dim: usize) -> impl Strategy<Value = Vec<f32>> {
    let some = |values: std::ops::Range<f32>| proptest::collection::vec(values, dim);
    prop_oneof![
        6 => some(-1.0..1.0),
        3 => proptest::collection::vec((-2_i8..3).prop_map(f32::from), dim),
        1 => Just(vec![0.0; dim]),
        1 => (0..dim, -50.0_f32..50.0).prop_map(move |(place, value)| {
            let mut row = vec![0.0; dim];
            row[place] = value;
            row
        }),
        1 => (some(-1.0..1.0), -30_i32..14).prop_map(|(row, power)| {
            row.into_iter().map(|value| value * 10.0_f32.powi(power)).collect()
        }),
    ]
}

fn case() -> impl Strategy<Value = (usize, Vec<f32>, Vec<f32>)> {
    (1_usize..40, 1_usize..400).prop_flat_map(|(dim, rows)| {
        // A few rows drawn and repeated: equal scores are usual.
        let rows = (proptest::collection::vec(row(dim), 1..40), proptest::collection::vec(0_usize..1000, rows))
            .prop_map(|(some, which)| which.into_iter().flat_map(|n| some[n % some.len()].clone()).collect());
        (Just(dim), rows, row(dim))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_scan_finds_what_scoring_everything_finds(
        (dim, rows, query) in case(),
        count in prop_oneof![1_usize..20, 0_usize..500],
        every in 1_usize..5,
    ) {
        let mut vectors = ItemVectors::new(rows, dim).unwrap();
        for kernel in kernels() {
            vectors = vectors.with(kernel);
            let admits = |index: usize| index.is_multiple_of(every);
            let expected = by_scoring(&vectors, &query, count, admits);
            prop_assert_eq!(&vectors.best(&query, count, admits), &expected, "{:?}", kernel);
            let each = vectors.best_of_each(&[(&query, count), (&query, 1)], || true).unwrap();
            prop_assert_eq!(&each[0], &by_scoring(&vectors, &query, count, |_| true));
            prop_assert_eq!(&each[1], &by_scoring(&vectors, &query, 1, |_| true));
        }
    }

    #[test]
    fn all_scores_are_the_scores_of_each((dim, rows, query) in case()) {
        let mut vectors = ItemVectors::new(rows, dim).unwrap();
        for kernel in kernels() {
            vectors = vectors.with(kernel);
            let each: Vec<f32> = (0..vectors.width()).map(|index| vectors.score(&query, index).unwrap()).collect();
            prop_assert_eq!(&vectors.scores(&query), &each);
        }
    }
}

/// Numbers that look drawn, -1 to 1.
fn drawn(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn a_large_table_is_searched_exactly_by_every_kernel() {
    let dim = 64;
    let mut vectors = ItemVectors::new(drawn(40_001 * dim, 1), dim).unwrap();
    for kernel in kernels() {
        vectors = vectors.with(kernel);
        for seed in 2..8 {
            let query = drawn(dim, seed);
            for count in [1, 150, 5_000] {
                assert_eq!(
                    vectors.best(&query, count, |_| true),
                    by_scoring(&vectors, &query, count, |_| true),
                    "{kernel:?}"
                );
            }
        }
    }
}

/// The bound of Cauchy and Schwarz is reached: a bound of a third of it would lose the better item.
#[test]
fn what_the_bytes_leave_out_is_never_lost() {
    // As bytes the first item has 1 half in its second component, and the second item has nothing there.
    let vectors = ItemVectors::new(vec![0.0, 0.0, 63.5, 0.251, 127.0, 0.499], 2).unwrap();
    for kernel in kernels() {
        let vectors = ItemVectors::new(vec![0.0, 0.0, 63.5, 0.251, 127.0, 0.499], 2).unwrap().with(kernel);
        assert_eq!(vectors.best(&[0.0, 127.0], 1, |_| true)[0].index, 2, "{kernel:?}");
    }
    assert!(vectors.score(&[0.0, 127.0], 2) > vectors.score(&[0.0, 127.0], 1));
}

#[test]
fn items_that_all_score_the_same_come_by_their_index() {
    let vectors = ItemVectors::new(vec![1.0; 50_000 * 4], 4).unwrap();
    for query in [[0.0; 4], [-2.0; 4], [1e-20; 4]] {
        let best: Vec<u32> = vectors.best(&query, 5, |index| index != 2).into_iter().map(|f| f.index).collect();
        assert_eq!(best, [1, 3, 4, 5, 6], "{query:?}");
    }
}

#[test]
fn a_query_that_is_no_number_has_no_best_items_and_one_of_another_length_neither() {
    let vectors = ItemVectors::new(drawn(100 * 8, 1), 8).unwrap();
    assert_eq!(vectors.best(&[f32::NAN; 8], 5, |_| true), []);
    assert_eq!(vectors.best(&[f32::INFINITY; 8], 5, |_| true), []);
    assert_eq!(vectors.best(&[1.0; 7], 5, |_| true), []);
    assert_eq!(vectors.best(&[1.0; 8], 0, |_| true), []);
}

#[test]
fn a_search_that_may_not_go_on_has_no_answer() {
    let vectors = ItemVectors::new(drawn(100 * 8, 1), 8).unwrap();
    assert_eq!(vectors.best_of_each(&[(&[1.0; 8], 3)], || false), None);
}

#[test]
fn few_items_are_scored_with_their_vectors() {
    let dim = 64;
    let vectors = ItemVectors::new(drawn(40_001 * dim, 1), dim).unwrap();
    let query = drawn(dim, 9);
    let (best, scored) = vectors.counted(&query, 150);
    assert_eq!(best.len(), 150);
    assert!(scored < 600, "{scored} of 40000");
}

#[test]
fn vectors_are_read_back_as_they_are_and_a_file_of_another_size_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("item_vectors.bin");
    let rows = drawn(10 * 3, 4);
    std::fs::write(&path, rows.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    let read = ItemVectors::read(&path, 10, 3).unwrap();
    assert_eq!((read.width(), read.dim()), (10, 3));
    assert_eq!(read.scores(&[1.0, 2.0, 3.0]), ItemVectors::new(rows, 3).unwrap().scores(&[1.0, 2.0, 3.0]));
    let refused = ItemVectors::read(&path, 11, 3).unwrap_err();
    assert!(matches!(refused, Error::Size { found: 120, expected: 132, .. }), "{refused}");
    assert!(matches!(ItemVectors::read(&path, 10, 0), Err(Error::Dim { dim: 0 })));
    assert!(matches!(ItemVectors::new(vec![0.0, f32::NAN], 1), Err(Error::Value { index: 1 })));
    assert!(matches!(ItemVectors::new(vec![1e16], 1), Err(Error::Value { index: 0 })));
}

#[test]
#[ignore = "prints times: cargo test --release -p rapport-retrieval -- --ignored --nocapture"]
fn how_long_a_search_of_a_hundred_thousand_items_takes() {
    let dim = 64;
    let vectors = ItemVectors::new(drawn(100_001 * dim, 1), dim).unwrap();
    let mut times: Vec<std::time::Duration> = (0..4_000)
        .map(|n| {
            let query = drawn(dim, n + 2);
            let started = std::time::Instant::now();
            assert_eq!(vectors.best(&query, 200, |_| true).len(), 200);
            started.elapsed()
        })
        .collect();
    times.sort();
    println!("{:?}: median {:?}, p99 {:?}", vectors.kernel(), times[2_000], times[3_960]);
}

//! The report: complete, escaped, self-contained, and readable back from JSON.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rapport_evaluation::report::{Axis, Block, Plot, Point, Section, Series, Table};
use rapport_evaluation::{
    Bootstrap, Bucket, Clusters, Confusion, Metric, RankingScores, Report, TiedRank, by_segment, calibration,
    gain_and_lift, population_stability_index, roc_curve,
};

const ATTACK: &str = "<script>alert('x')</script>&\"\u{1b}[31m";

/// Everything a report can hold, from 400 made-up customers and two models.
fn full_report() -> Report {
    let ranks = |slip: usize| -> Vec<TiedRank> {
        (0..400).map(|user| TiedRank { better: user * 7 % 23 + slip * (user % 3), tied: user % 2 }).collect()
    };
    let (model, popular) = (ranks(0), ranks(6));
    let score = |ranks: &[TiedRank]| RankingScores::from_ranks(ranks, &[5, 10]).unwrap();
    let (model, popular) = (score(&model), score(&popular));
    let bootstrap = Bootstrap { resamples: 300, ..Bootstrap::default() };
    let lengths: Vec<Bucket> = (0..400).map(|user| Bucket::of(user * user % 97 * 2, &[5, 20, 100])).collect();
    let segments = |scores: &RankingScores| {
        let values = scores.values(Metric::Ndcg, 10).unwrap();
        let mean = |rows: &[usize]| Ok(rows.iter().map(|row| values[*row]).sum::<f64>() / rows.len() as f64);
        by_segment(&lengths, &Clusters::each_row(400), 60, &bootstrap, mean).unwrap()
    };
    let (of_model, of_popular) = (segments(&model), segments(&popular));
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut uniform = || random.random_range(0.0..1.0f64);
    let sharp: Vec<f64> = (0..400).map(|_| uniform().powi(2)).collect();
    let labels: Vec<bool> = sharp.iter().map(|p| uniform() < *p).collect();
    let blunt: Vec<f64> = sharp.iter().map(|p| 0.2 + 0.4 * p + 0.3 * uniform()).collect();
    let fractions: Vec<f64> = (1..=20).map(|i| f64::from(i) / 20.0).collect();
    let (roc_a, roc_b) = (roc_curve(&labels, &sharp).unwrap(), roc_curve(&labels, &blunt).unwrap());
    let (cal_a, cal_b) = (calibration(&labels, &sharp, 10).unwrap(), calibration(&labels, &blunt, 10).unwrap());
    let (gain_a, gain_b) =
        (gain_and_lift(&labels, &sharp, &fractions).unwrap(), gain_and_lift(&labels, &blunt, &fractions).unwrap());
    let loss: Vec<f64> = (0..25).map(|epoch| 0.9 + 2.0 * (-0.2 * f64::from(epoch)).exp()).collect();
    let held: Vec<f64> =
        (0..25).map(|epoch| 1.0 + 2.0 * (-0.18 * f64::from(epoch)).exp() + 0.004 * f64::from(epoch)).collect();
    let feature: Vec<Option<f64>> = (0..400).map(|row| Some(f64::from(row % 37))).collect();
    let later: Vec<Option<f64>> = (0..400).map(|row| (row % 9 > 0).then(|| f64::from(row % 37 + 4))).collect();
    let stability = population_stability_index(&feature, &later, 10).unwrap();
    let band = (0..12).map(|week| {
        let y = 0.3 + 0.01 * f64::from(week);
        Point { x: f64::from(week), y, interval: Some((y - 0.02, y + 0.03)) }
    });
    let comparison = model.compare(&popular, Metric::Ndcg, 10, &bootstrap).unwrap();
    let metrics = [(Metric::HitRate, 10), (Metric::Ndcg, 10), (Metric::ReciprocalRank, 10)];
    let ranking = Table::ranking(
        "Held-back item, full ranking",
        &metrics,
        &[("encoder", &model), ("popularity", &popular)],
        &bootstrap,
    );
    let confusion = Confusion::at_threshold(&labels, &sharp, 0.5).unwrap();
    Report {
        title: "Next item and churn, week 47".into(),
        facts: vec![
            ("customers".into(), "400".into()),
            ("resamples".into(), "300".into()),
            ("label".into(), ATTACK.into()),
        ],
        sections: vec![
            Section {
                title: "Ranking".into(),
                blocks: vec![
                    Block::Text("One item of each customer was held back; all others were candidates.".into()),
                    Block::Table(ranking.unwrap()),
                    Block::Table(
                        Table::comparisons("Against popularity", &[("encoder - popularity", comparison)]).unwrap(),
                    ),
                    Block::Plot(Plot::learning_curves(
                        "Loss by epoch",
                        "loss",
                        &[("train", &loss), ("validation", &held)],
                    )),
                    Block::Plot(Plot::by_segment(
                        "NDCG@10 by history length",
                        "events of the customer",
                        "NDCG@10",
                        &[("encoder", &of_model), ("popularity", &of_popular)],
                    )),
                    Block::Table(Table::by_segment("NDCG@10 by history length", "NDCG@10", &of_model)),
                ],
            },
            Section {
                title: "Churn".into(),
                blocks: vec![
                    Block::Plot(Plot::roc("ROC", &[("trees", &roc_a), ("logistic", &roc_b)])),
                    Block::Plot(Plot::calibration("Calibration, 10 bins", &[("trees", &cal_a), ("logistic", &cal_b)])),
                    Block::Plot(Plot::gain("Cumulative gain", &[("trees", &gain_a), ("logistic", &gain_b)])),
                    Block::Plot(Plot {
                        title: ATTACK.into(),
                        x: Axis::new("week"),
                        y: Axis::new("NDCG@10"),
                        series: vec![Series::line(ATTACK, band.collect())],
                        diagonal: false,
                    }),
                    Block::Table(Table::confusion("At 0.5", &["stays", "leaves"], &confusion)),
                    Block::Table(Table::drift("Inputs", &[("recency", &stability)])),
                ],
            },
        ],
    }
}

#[test]
fn the_page_holds_every_part_and_needs_nothing_else() {
    let page = full_report().to_html();
    assert_eq!(page.matches("<figure>").count(), 6);
    assert_eq!(page.matches("<table>").count(), 5);
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    for outside in ["http:", "https:", "<script", "<link", "@import", "url(", "<img", "src="] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf\""));
    assert!(page.contains("prefers-color-scheme: dark"));
}

#[test]
fn a_label_cannot_write_markup_or_move_a_cursor() {
    let report = full_report();
    assert!(report.to_html().contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;"));
    assert!(!report.to_html().contains('\u{1b}') && !report.to_text().contains('\u{1b}'));
}

#[test]
fn a_report_read_back_from_json_makes_the_same_page() {
    let report = full_report();
    let json = serde_json::to_string(&report).unwrap();
    let read: Report = serde_json::from_str(&json).unwrap();
    assert!(read.to_html() == report.to_html() && read.to_text() == report.to_text());
}

#[test]
fn plain_text_lines_numbers_up() {
    let mut table = Table::new("Churn", &["model", "AUC"]);
    table.row(["trees", "0.84"]).row(["longer name", "0.8"]).row(["short"]).row(["a", "1", "too many"]);
    let section = Section { title: "Results".into(), blocks: vec![Block::Table(table)] };
    let report = Report { title: "Week".into(), facts: vec![("seed".into(), "1".into())], sections: vec![section] };
    let expected = "Week\n====\n\nseed  1\n\n\nResults\n-------\n\nChurn\nmodel         AUC\ntrees        0.84\n\
                    longer name   0.8\nshort\na               1\n\n";
    assert_eq!(report.to_text(), expected);
}

#[test]
fn a_plot_without_usable_points_says_so_and_one_flat_point_is_drawn() {
    let plot = |points: Vec<Point>| {
        let series = vec![Series::line("s", points)];
        let plot = Plot { title: "t".into(), x: Axis::new("x"), y: Axis::new("y"), series, diagonal: true };
        let section = Section { title: "s".into(), blocks: vec![Block::Plot(plot)] };
        Report { title: "r".into(), facts: vec![], sections: vec![section] }.to_html()
    };
    assert!(plot(vec![]).contains("no data"));
    assert!(plot(vec![Point::at(f64::NAN, 1.0), Point::at(1.0, f64::INFINITY)]).contains("no data"));
    assert!(!plot(vec![Point::at(-1e300, -1e300), Point::at(1e300, 1e300)]).contains("NaN"));
    assert!(plot(vec![Point::at(0.0, f64::MAX)]).contains("no data"));
    for value in [0.0, 5.0, -3.0, 1e-300, 1e300] {
        let page = plot(vec![Point::at(value, value)]);
        assert!(page.contains("<circle") && !page.contains("NaN") && !page.contains("inf"), "{value}");
    }
}

#[test]
fn a_roc_curve_of_many_rows_is_thinned_to_what_a_screen_can_show() {
    let labels: Vec<bool> = (0..50_000).map(|row| row % 3 == 0).collect();
    let scores: Vec<f64> = (0..50_000).map(|row| f64::from(row * 7919 % 50_021)).collect();
    let plot = Plot::roc("ROC", &[("model", &roc_curve(&labels, &scores).unwrap())]);
    let points = &plot.series[0].points;
    assert!((100..=2100).contains(&points.len()), "{}", points.len());
    assert_eq!((points[0], points[points.len() - 1]), (Point::at(0.0, 0.0), Point::at(1.0, 1.0)));
}

use std::fmt::Write as _;

use super::program::{Folder, number, project, test_data};

const MODELS: &str = "
models:
  - {name: recency, columns: [days_since_last], try: [{kind: logistic}]}
  - {name: trees, try: [{kind: boosting, boosting: {trees: 40, validation_fraction: 0}}]}
";

/// Customers who buy every 3 to 57 days, every second one only until some day: who is late by their own
/// measure is gone, and who has a long measure is not due yet.
fn orders() -> String {
    let mut text = String::from("who,day,units,each\n");
    for customer in 0..300 {
        let gap = 3 + customer % 55;
        let until = if customer % 2 == 0 { 60 + customer * 7 % 250 } else { 336 };
        for day in (customer % gap..until).step_by(gap) {
            let (month, of_month) = (day / 28 + 1, day % 28 + 1);
            writeln!(text, "c{customer},2025-{month:02}-{of_month:02},{},2.50", 1 + customer % 4).unwrap();
        }
    }
    text
}

const EVALUATE: [&str; 16] = [
    "evaluate",
    "purchases",
    "--data",
    "orders.csv",
    "--customer",
    "who",
    "--date",
    "day",
    "--quantity",
    "units",
    "--price",
    "each",
    "--config",
    "models.yaml",
    "--horizon",
    "20",
];

#[test]
fn models_of_every_feature_beat_recency_where_customers_differ_in_their_rhythm() {
    let folder = Folder::with(&[("orders.csv", &orders()), ("models.yaml", MODELS)]);
    let asked = ["--train", "2025-05-01,2025-06-01", "--test", "2025-08-15", "--resamples", "200"];
    let answer = folder.answer(&[&EVALUATE[..], &asked, &["--report", "page.html"]].concat());
    let models = answer["evaluation"]["models"].as_array().unwrap();
    let auc = |at: usize| number(&models[at]["figures"]["auc"]["estimate"]);
    assert!(auc(1) > auc(0) + 0.02, "{answer:#}");
    assert_eq!(answer["evaluation"]["comparisons"][0]["test"], "DeLong");
    assert_eq!(answer["test"], "2025-08-15");
    assert!(folder.read("page.html").contains("Who buys within 20 days"));
}

#[test]
fn a_cutoff_that_would_tell_the_future_is_refused() {
    let folder = Folder::with(&[("orders.csv", &orders()), ("models.yaml", MODELS)]);
    let refuses = |train: &str, test: &str, part: &str| {
        folder.refuses(&[&EVALUATE[..], &["--train", train, "--test", test]].concat(), 1, part);
    };
    refuses("2025-05-01,2025-08-01", "2025-08-15", "training cutoff 2025-08-01 is known on 2025-08-21");
    refuses("2025-05-01", "2025-12-20", "are not over by then");
    refuses("2024-05-01", "2025-08-15", "nobody bought before 2024-05-01");
    folder.refuses(&[&EVALUATE[..], &["--train", "2025-02-30", "--test", "2025-08-15"]].concat(), 64, "is no day");
}

/// The reference's protocol: its counts and its single-feature figures come out exactly.
#[test]
fn on_online_retail_the_rows_and_the_baselines_are_those_of_the_reference() {
    let Some(data) = test_data("online-retail/online_retail_full_nostockcode.parquet") else { return };
    let folder = Folder::with(&[("few.yaml", &project_models())]);
    let data = data.display().to_string();
    let asked = [
        "evaluate",
        "purchases",
        "--data",
        &data,
        "--customer",
        "CustomerID",
        "--date",
        "InvoiceDate",
        "--quantity",
        "Quantity",
        "--price",
        "UnitPrice",
        "--train",
        "2011-03-15,2011-04-14,2011-05-14,2011-06-13",
        "--test",
        "2011-09-11",
        "--config",
        "few.yaml",
        "--resamples",
        "100",
    ];
    let answer = folder.answer(&asked);
    assert_eq!(answer["rows"]["purchases"], 392_617);
    let evaluation = &answer["evaluation"];
    assert_eq!((evaluation["rows"].as_u64(), evaluation["positives"].as_u64()), (Some(3_370), Some(1_921)));
    let models = evaluation["models"].as_array().unwrap();
    let auc = |name: &str| {
        let model = models.iter().find(|model| model["name"] == name).unwrap();
        number(&model["figures"]["auc"]["estimate"])
    };
    println!("recency {:.4}, frequency {:.4}, logistic {:.4}", auc("recency"), auc("frequency"), auc("logistic"));
    assert!((auc("recency") - 0.683).abs() < 1e-3 && (auc("frequency") - 0.723).abs() < 1e-3);
    assert!((0.73..0.80).contains(&auc("logistic")), "far above the reference's .744 something looks ahead");
}

/// The models that come with the project, without the slow ones.
fn project_models() -> String {
    let all = std::fs::read_to_string(project("deploy/learning/purchases.yaml")).unwrap();
    all.split("  - name: trees").next().unwrap().to_owned()
}

use std::fmt::Write as _;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::program::{Folder, number, test_data};

const DAYS: u32 = 360;

/// A day of a year whose months have 30 days, as a date that exists.
fn date(day: u32) -> String {
    let (month, of_month) = (day / 30 + 1, day % 30 + 1);
    if month == 2 && of_month > 28 { "2025-02-28".into() } else { format!("2025-{month:02}-{of_month:02}") }
}

/// Customers with a rate and an amount of their own who leave for good with a chance of a fifth after
/// each order; one in ten orders is partly returned on its day.
fn orders(customers: u32) -> String {
    let mut random = ChaCha8Rng::seed_from_u64(23);
    let mut text = String::from("order,who,day,paid\n");
    for customer in 0..customers {
        let (rate, amount): (f64, f64) = (random.random_range(0.005..0.05), random.random_range(10.0..90.0));
        let mut day: u32 = random.random_range(0..180);
        while day < DAYS {
            let paid = amount * random.random_range(0.5..1.5);
            writeln!(text, "o,c{customer:03},{},{paid:.2}", date(day)).unwrap();
            if random.random::<f64>() < 0.1 {
                writeln!(text, "r,c{customer:03},{},-1.00", date(day)).unwrap();
            }
            if random.random::<f64>() < 0.2 {
                break;
            }
            let gap = -random.random_range(1e-9..1.0f64).ln() / rate;
            day += gap.clamp(1.0, 400.0) as u32;
        }
    }
    // Bought once and brought everything back.
    text + "o,gone,2025-03-01,40\nr,gone,2025-03-20,-40\n"
}

const EVALUATE: [&str; 10] =
    ["evaluate", "lifetime", "--data", "orders.csv", "--customer", "who", "--date", "day", "--amount", "paid"];

#[test]
fn every_customer_gets_a_value_a_segment_and_an_interval_and_the_hold_out_is_judged() {
    let folder = Folder::with(&[("orders.csv", &orders(400))]);
    let asked = ["--split", "2025-09-01", "--out", "customers.csv", "--report", "report.html"];
    let answer = folder.answer(&[&EVALUATE[..], &asked].concat());
    assert_eq!((answer["customers"].as_u64(), answer["customers_left_out"].as_u64()), (Some(400), Some(1)));
    for (model, parameters) in [("bg_nbd", 4), ("gamma_gamma", 3)] {
        let fit = &answer[model];
        assert_eq!(fit["parameters"].as_array().unwrap().len(), parameters);
        assert_eq!(fit["standard_errors"].as_array().unwrap().len(), parameters, "{answer:#}");
    }
    let figures = &answer["holdout"]["figures"];
    let ratio = number(&figures["predicted"]) / number(&figures["actual"]);
    assert!((0.6..1.6).contains(&ratio), "{figures}");

    let csv = folder.read("customers.csv");
    let mut rows = csv::Reader::from_reader(csv.as_bytes());
    let names: Vec<String> = rows.headers().unwrap().iter().map(str::to_owned).collect();
    let at = |name: &str| names.iter().position(|column| column == name).unwrap();
    let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 400);
    let mut total = 0.0;
    for row in &rows {
        let cell = |name: &str| row[at(name)].parse::<f64>().unwrap();
        assert!((0.0..=1.0).contains(&cell("alive")) && (0.0..=1.0).contains(&cell("no_purchase")));
        assert!(cell("value_low") <= cell("value") && cell("value") <= cell("value_high"), "{row:?}");
        assert!(cell("expected_purchases") >= 0.0 && cell("expected_amount") > 0.0);
        assert!(["recency", "frequency", "money"].iter().all(|score| (1.0..=5.0).contains(&cell(score))));
        assert!(!row[at("segment")].is_empty());
        total += cell("value");
    }
    let segments = answer["segments"].as_array().unwrap();
    let sum = |key: &str| segments.iter().map(|segment| number(&segment[key])).sum::<f64>();
    assert!((sum("customers") - 400.0).abs() < 1e-9 && (sum("value") / total - 1.0).abs() < 1e-4);
    let page = folder.read("report.html");
    assert!(page.ends_with("</html>\n") && page.contains("Hold-out") && !page.contains("http"));
    assert_eq!(folder.names(), ["customers.csv", "orders.csv", "report.html"]);
}

#[test]
fn a_terminal_gets_parameters_hold_out_segments_and_what_to_know_before() {
    let folder = Folder::with(&[("orders.csv", &orders(300))]);
    let output = folder.run(&[&EVALUATE[..], &["--split", "2025-09-01", "--unit", "weeks"]].concat());
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for part in ["standard error", "alpha", "repeats before", "champion", "value each", "1 customers whose total"] {
        assert!(shown.contains(part), "{shown} lacks {part}");
    }
}

#[test]
fn other_dates_and_other_files_are_read_by_their_format() {
    let text = orders(200);
    let american: String = text
        .lines()
        .map(|line| match line.split(',').collect::<Vec<_>>()[..] {
            [order, who, day, paid] if day != "day" => {
                let parts: Vec<&str> = day.split('-').collect();
                format!("{order}\t{who}\t{}/{}/{} 8:30\t{paid}\n", parts[1], parts[2], parts[0])
            }
            _ => line.replace(',', "\t") + "\n",
        })
        .collect();
    let folder = Folder::with(&[("orders.csv", &text), ("american.tsv", &american)]);
    let mut iso = folder.answer(&EVALUATE);
    let columns = ["--customer", "who", "--date", "day", "--amount", "paid", "--date-format", "%m/%d/%Y"];
    let mut other = folder.answer(&[&["evaluate", "lifetime", "--data", "american.tsv"][..], &columns].concat());
    iso["data"].take();
    other["data"].take();
    assert_eq!(iso, other);
}

#[test]
fn wrong_input_is_named_and_leaves_no_file() {
    let text = orders(60);
    let once: String = std::iter::once("who,day,paid\n".to_owned())
        .chain((0..20).map(|n| format!("c{n},2025-01-{:02},5\n", n + 1)))
        .collect();
    let folder = Folder::with(&[
        ("orders.csv", &text),
        ("empty.csv", ""),
        ("once.csv", &once),
        ("date.csv", "who,day,paid\na,2025-02-30,1\n"),
        ("amount.csv", "who,day,paid\na,2025-02-20,1\na,2025-02-21,inf\n"),
        ("returned.csv", "who,day,paid\na,2025-02-20,-1\n"),
    ]);
    let refuses = |data: &str, more: &[&str], code: i32, part: &str| {
        let columns =
            ["--customer", "who", "--date", "day", "--amount", "paid", "--out", "o.csv", "--report", "r.html"];
        let arguments = [&["evaluate", "lifetime", "--data", data][..], &columns, more].concat();
        folder.refuses(&arguments, code, part);
    };
    refuses("none.csv", &[], 1, "none.csv");
    refuses("empty.csv", &[], 1, "is empty");
    refuses("once.csv", &[], 1, "bought again");
    refuses("date.csv", &[], 1, "row 1, column day: \"2025-02-30\"");
    refuses("amount.csv", &[], 1, "row 2, column paid: \"inf\"");
    refuses("returned.csv", &[], 1, "no customer's total is above zero");
    refuses("orders.csv", &["--split", "2030-01-01"], 1, "is outside the data");
    refuses("orders.csv", &["--split", "yesterday"], 64, "no day such as");
    refuses("orders.csv", &["--date-format", "%d"], 64, "must have a year");
    refuses("orders.csv", &["--discount=-1"], 64, "from 0 on");
    refuses("orders.csv", &["--months", "0"], 64, "0");
    let columns = ["--customer", "buyer", "--date", "day", "--amount", "paid", "--out", "o.csv"];
    let arguments = [&["evaluate", "lifetime", "--data", "orders.csv"][..], &columns].concat();
    folder.refuses(&arguments, 64, "no column \"buyer\"");
}

/// The whole cohort of CDNOW: the published figures are those of a tenth of it, hence the widths.
#[test]
fn cdnow_is_predicted_within_a_sixth_by_parameters_near_the_published_ones() {
    let Some(path) = test_data("cdnow/CDNOW_master.txt") else { return };
    let mut csv = String::from("who,day,paid\n");
    for line in std::fs::read_to_string(path).unwrap().lines() {
        if let [who, day, _, paid] = line.split_whitespace().collect::<Vec<_>>()[..]
            && who != "customer_id"
        {
            writeln!(csv, "{who},{day},{paid}").unwrap();
        }
    }
    let folder = Folder::with(&[("orders.csv", &csv)]);
    let asked = ["--date-format", "%Y%m%d", "--unit", "weeks", "--split", "1997-09-30", "--out", "customers.csv"];
    let answer = folder.answer(&[&EVALUATE[..], &asked].concat());
    println!("{answer:#}");
    let near = |found: &Value, published: f64, within: f64| {
        assert!((number(found) / published - 1.0).abs() < within, "{found} is far from {published}");
    };
    let held_out = &answer["holdout"];
    for (at, published) in [0.24259, 4.41353, 0.79289, 2.42575].into_iter().enumerate() {
        near(&held_out["parameters"][at], published, 0.4);
    }
    near(&held_out["figures"]["predicted"], number(&held_out["figures"]["actual"]), 1.0 / 6.0);
    assert_eq!(folder.read("customers.csv").lines().count() as u64, answer["customers"].as_u64().unwrap() + 1);
}

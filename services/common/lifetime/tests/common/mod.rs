//! Finds and reads the CDNOW files; a test whose file is absent says so and passes.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use rapport_lifetime::{History, Ledger};

/// A file of the `cdnow` folder: below `RAPPORT_TEST_DATA`, or below a `shared/data` beside this
/// checkout.
pub fn cdnow(file: &str) -> Option<String> {
    let folder = std::env::var_os("RAPPORT_TEST_DATA").map(PathBuf::from).or_else(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        here.ancestors().map(|folder| folder.join("shared/data")).find(|folder| folder.is_dir())
    });
    let text = folder.and_then(|folder| std::fs::read_to_string(folder.join("cdnow").join(file)).ok());
    if text.is_none() {
        eprintln!("skipped: cdnow/{file} is absent; name its folder's parent in RAPPORT_TEST_DATA");
    }
    text
}

/// The rows of a CSV file with a header, as numbers.
pub fn rows<const N: usize>(csv: &str) -> Vec<[f64; N]> {
    let row = |line: &str| {
        let numbers: Vec<f64> = line.split(',').map(|cell| cell.trim().parse().unwrap()).collect();
        <[f64; N]>::try_from(numbers).unwrap()
    };
    csv.lines().skip(1).filter(|line| !line.trim().is_empty()).map(row).collect()
}

/// The published sample, in weeks.
pub fn sample() -> Option<Vec<History>> {
    let rows = rows::<4>(&cdnow("cdnow_customers_summary.csv")?);
    Some(rows.iter().map(|[_, x, recency, age]| History::new(*x as u32, *recency, *age).unwrap()).collect())
}

/// The end of the papers' observation, and of their hold-out 39 weeks later.
pub fn ends() -> (i32, i32) {
    (day("19970930"), day("19980630"))
}

/// Every transaction of the whole cohort.
pub fn master() -> Option<Ledger> {
    let mut ledger = Ledger::default();
    for line in cdnow("CDNOW_master.txt")?.lines() {
        let cells: Vec<&str> = line.split_whitespace().collect();
        // The first line is a header.
        if let [customer, date, _, dollars] = cells[..]
            && customer != "customer_id"
        {
            ledger.apply(customer, day(date), dollars.parse().unwrap()).unwrap();
        }
    }
    Some(ledger)
}

/// Days since 1970-01-01 of a yyyymmdd date (Hinnant, "chrono-compatible low-level date algorithms").
pub fn day(date: &str) -> i32 {
    let number = |part: &str| part.parse::<i32>().unwrap();
    let (year, month, day) = (number(&date[..4]), number(&date[4..6]), number(&date[6..]));
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * (year % 400) + year % 400 / 4 - year % 400 / 100 + of_year + year / 400 * 146_097 - 719_468
}

//! Made-up customers for the tests.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rapport_tabular::{Config, Error, Kind, Table};

pub const KINDS: [Kind; 4] = [Kind::Logistic, Kind::Boosting, Kind::Forest, Kind::Mlp];

pub struct Customers {
    pub table: Table,
    pub labels: Vec<bool>,
}

/// `plan` and `spend` (a tenth of it missing) decide the label with noise; `noise` does not.
pub fn customers(rows: usize, seed: u64) -> Result<Customers, Error> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let plans = ["basic", "plus", "pro"];
    let (mut spend, mut noise, mut plan, mut labels) = (vec![], vec![], vec![], vec![]);
    for _ in 0..rows {
        let (x, chosen): (f64, usize) = (random.random_range(-2.0..2.0), random.random_range(0..3));
        let missing = random.random::<f64>() < 0.1;
        let score = 2.0 * chosen as f64 - 2.0 + if missing { 1.5 } else { 1.5 * x };
        labels.push(random.random::<f64>() < 1.0 / (1.0 + (-score).exp()));
        spend.push(if missing { f64::NAN } else { x });
        noise.push(random.random::<f64>());
        plan.push(plans[chosen]);
    }
    let table = Table::builder().numeric("spend", spend).numeric("noise", noise).categorical("plan", plan).build()?;
    Ok(Customers { table, labels })
}

/// The default with fewer trees and networks.
pub fn quick(kind: Kind) -> Config {
    let mut config = Config { kind, ..Config::default() };
    config.boosting.trees = 100;
    config.forest.trees = 40;
    config.mlp.networks = 2;
    config
}

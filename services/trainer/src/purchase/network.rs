//! Embedding -> LSTM -> dropout -> LSTM -> dropout -> one logit, and its training.

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::{
    Device, Kind, Reduction, Tensor,
    nn::{self, Module as _, OptimizerConfig as _, RNN as _},
};

use super::moment::Row;
use crate::{
    Error,
    progress::{Progress, Watch},
};

const NAME: &str = "purchase";
const DAY_MS: f64 = 86_400_000.0;
/// Ages are told apart by the power of two of their days: 2^11 days are more than five years.
const AGES: i64 = 12;
/// Batches within which rows are sorted by length, so that little is padded.
const SORTED_BATCHES: usize = 16;
/// Rows that are scored at once.
const SCORED: usize = 256;

/// Sizes and training; the defaults are the article's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PurchaseRecipe {
    /// Width of the embedding.
    pub dim: i64,
    /// Of both LSTMs.
    pub hidden: i64,
    pub dropout: f64,
    pub learning_rate: f64,
    /// Customers in a step.
    pub batch: usize,
    /// Passes, at most: the newest training cutoff chooses how many.
    pub epochs: u32,
    /// How many of the newest events are looked at.
    pub sequence_length: usize,
    /// Adds to each event's vector one for its age at the cutoff. The article's network sees the order of
    /// events and not their time.
    pub ages: bool,
    pub seed: u64,
}

impl Default for PurchaseRecipe {
    fn default() -> Self {
        Self {
            dim: 64,
            hidden: 128,
            dropout: 0.2,
            learning_rate: 1e-3,
            batch: 64,
            epochs: 10,
            sequence_length: 100,
            ages: true,
            seed: 42,
        }
    }
}

impl PurchaseRecipe {
    /// # Errors
    /// The field that is out of range, for a person.
    pub fn check(&self) -> Result<(), String> {
        let whole = |name: &str, value: i64, most: i64| match (1..=most).contains(&value) {
            true => Ok(()),
            false => Err(format!("{name}: {value} is not in 1..={most}")),
        };
        whole("dim", self.dim, 4096)?;
        whole("hidden", self.hidden, 4096)?;
        whole("batch", self.batch as i64, 1_000_000)?;
        whole("epochs", self.epochs.into(), 10_000)?;
        whole("sequence_length", self.sequence_length as i64, 10_000)?;
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(format!("dropout: {} is not in [0, 1)", self.dropout));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            return Err(format!("learning_rate: {} is not in (0, 1]", self.learning_rate));
        }
        Ok(())
    }
}

/// Weights and how to score with them.
pub struct Network {
    weights: nn::VarStore,
    items: nn::Embedding,
    ages: Option<nn::Embedding>,
    first: nn::LSTM,
    second: nn::LSTM,
    out: nn::Linear,
    recipe: PurchaseRecipe,
}

/// The newest events of some rows, padded behind.
struct Inputs {
    /// Item indexes, `[batch, length]`, 0 is padding.
    items: Tensor,
    /// Age buckets, `[batch, length]`.
    ages: Tensor,
    /// The place of each row's newest event, `[batch]`.
    newest: Tensor,
}

impl Network {
    /// Random weights, drawn by libtorch's generator. `width` is the number of items + 1.
    fn new(recipe: &PurchaseRecipe, width: usize, device: Device) -> Self {
        let weights = nn::VarStore::new(device);
        let path = weights.root();
        let lstm = |name: &str, from: i64| nn::lstm(&path / name, from, recipe.hidden, nn::RNNConfig::default());
        let items = nn::embedding(&path / "items", width as i64, recipe.dim, nn::EmbeddingConfig::default());
        let ages = recipe.ages.then(|| nn::embedding(&path / "ages", AGES, recipe.dim, nn::EmbeddingConfig::default()));
        let (first, second) = (lstm("first", recipe.dim), lstm("second", recipe.hidden));
        let out = nn::linear(&path / "out", recipe.hidden, 1, nn::LinearConfig::default());
        Self { items, ages, first, second, out, recipe: recipe.clone(), weights }
    }

    /// Logits `[batch]`.
    fn logits(&self, inputs: &Inputs, train: bool) -> Tensor {
        let mut x = self.items.forward(&inputs.items);
        if let Some(ages) = &self.ages {
            x += ages.forward(&inputs.ages);
        }
        let (x, _) = self.first.seq(&x);
        let (x, _) = self.second.seq(&x.dropout(self.recipe.dropout, train));
        let place = inputs.newest.view([-1, 1, 1]).expand([-1, 1, self.recipe.hidden], false);
        let newest = x.gather(1, &place, false).squeeze_dim(1);
        self.out.forward(&newest.dropout(self.recipe.dropout, train)).squeeze_dim(1)
    }

    fn inputs(&self, rows: &[&Row<'_>]) -> Inputs {
        let most = self.recipe.sequence_length;
        let length = rows.iter().map(|row| row.items.len().min(most)).max().unwrap_or(0);
        let (mut items, mut ages) = (vec![0_i64; rows.len() * length], vec![0_i64; rows.len() * length]);
        let mut newest = Vec::with_capacity(rows.len());
        for (place, row) in rows.iter().enumerate() {
            let from = row.items.len().saturating_sub(most);
            let events = row.items[from..].iter().zip(&row.times[from..]);
            for (at, (&item, &time)) in events.enumerate() {
                items[place * length + at] = i64::from(item);
                ages[place * length + at] = age(row.cutoff - time);
            }
            newest.push((row.items.len() - from) as i64 - 1);
        }
        let device = self.weights.device();
        let shape = [rows.len() as i64, length as i64];
        let tensor = |values: &[i64]| Tensor::from_slice(values).view(shape).to_device(device);
        Inputs { items: tensor(&items), ages: tensor(&ages), newest: Tensor::from_slice(&newest).to_device(device) }
    }

    /// The probability that each row buys, `[rows]`.
    ///
    /// # Errors
    /// libtorch failed.
    pub fn probabilities(&self, rows: &[Row<'_>]) -> Result<Vec<f64>, Error> {
        let _no_grad = tch::no_grad_guard();
        let mut all = Vec::with_capacity(rows.len());
        for some in rows.chunks(SCORED) {
            let some: Vec<&Row<'_>> = some.iter().collect();
            let values = self.logits(&self.inputs(&some), false).sigmoid().to_kind(Kind::Double).to_device(Device::Cpu);
            let mut flat = vec![0.0; some.len()];
            values.f_copy_data(&mut flat, some.len())?;
            all.extend(flat);
        }
        Ok(all)
    }
}

/// `floor(log2(1 + days))`, at most the last bucket.
fn age(ms: i64) -> i64 {
    ((1.0 + ms.max(0) as f64 / DAY_MS).log2() as i64).min(AGES - 1)
}

/// Learns on `earlier` and keeps the number of passes that has the best AUC on `newest`, then learns on
/// all of them for so many passes; one after the other, from the same random weights.
///
/// # Errors
/// Nothing to learn from, a loss that is not finite, one class in `newest`, or the watch asked for the end.
pub fn choose_and_fit(
    recipe: &PurchaseRecipe,
    earlier: &[Row<'_>],
    newest: &[Row<'_>],
    all: &[Row<'_>],
    width: usize,
    device: Device,
    watch: &Watch<'_>,
) -> Result<(Network, PurchaseRecipe), Error> {
    let labels: Vec<bool> = newest.iter().map(|row| row.buys).collect();
    let mut best = (f64::NEG_INFINITY, 1);
    train(recipe, recipe.epochs, earlier, width, device, watch, &mut |epoch, network| {
        let auc = rapport_evaluation::roc_auc(&labels, &network.probabilities(newest)?)?;
        watch.report(Progress::note("choose", 0.0, format!("pass {epoch}: AUC {auc:.4} on the newest cutoff")));
        if auc > best.0 {
            best = (auc, epoch);
        }
        Ok(())
    })?;
    let network = train(recipe, best.1, all, width, device, watch, &mut |_, _| Ok(()))?;
    Ok((network, PurchaseRecipe { epochs: best.1, ..recipe.clone() }))
}

type AfterPass<'a> = dyn FnMut(u32, &Network) -> Result<(), Error> + 'a;

fn train(
    recipe: &PurchaseRecipe,
    epochs: u32,
    rows: &[Row<'_>],
    width: usize,
    device: Device,
    watch: &Watch<'_>,
    after: &mut AfterPass<'_>,
) -> Result<Network, Error> {
    if rows.is_empty() {
        return Err(Error::CannotTrain { model: NAME, reason: "no customer has an event before a cutoff".into() });
    }
    tch::manual_seed(recipe.seed as i64);
    let network = Network::new(recipe, width, device);
    let mut optimizer = nn::Adam::default().build(&network.weights, recipe.learning_rate)?;
    let mut random = ChaCha8Rng::seed_from_u64(recipe.seed);
    for epoch in 1..=epochs {
        let (mut sum, mut seen) = (0.0, 0);
        for batch in batches(rows, recipe.batch, &mut random) {
            if (watch.stop)() {
                return Err(Error::Cancelled);
            }
            let labels: Vec<f32> = batch.iter().map(|row| f32::from(u8::from(row.buys))).collect();
            let labels = Tensor::from_slice(&labels).to_device(device);
            let logits = network.logits(&network.inputs(&batch), true);
            let none: Option<&Tensor> = None;
            let loss = logits.f_binary_cross_entropy_with_logits(&labels, none, none, Reduction::Mean)?;
            optimizer.backward_step(&loss);
            sum += loss.double_value(&[]) * batch.len() as f64;
            seen += batch.len();
        }
        let loss = sum / seen.max(1) as f64;
        if !loss.is_finite() {
            return Err(Error::NotFinite { model: NAME.into(), what: "the loss" });
        }
        watch.report(Progress::note(
            "fit purchase",
            f64::from(epoch) / f64::from(epochs),
            format!("pass {epoch} of {epochs}: loss {loss:.4}"),
        ));
        after(epoch, &network)?;
    }
    Ok(network)
}

/// Every row once, in random batches of similar length.
fn batches<'a, 'b>(rows: &'a [Row<'b>], size: usize, random: &mut ChaCha8Rng) -> Vec<Vec<&'a Row<'b>>> {
    let mut order: Vec<&Row<'_>> = rows.iter().collect();
    order.shuffle(random);
    order.chunks_mut(size * SORTED_BATCHES).for_each(|some| some.sort_by_key(|row| row.items.len()));
    let mut batches: Vec<Vec<&Row<'_>>> = order.chunks(size).map(<[&Row<'_>]>::to_vec).collect();
    batches.shuffle(random);
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNWATCHED: Watch<'_> = Watch { report: &|_| (), stop: &|| false };
    const DAY: i64 = 86_400_000;

    fn small() -> PurchaseRecipe {
        PurchaseRecipe { dim: 8, hidden: 16, learning_rate: 0.02, batch: 16, epochs: 12, ..PurchaseRecipe::default() }
    }

    /// Customers buy again when their newest item is 1, whatever came before.
    fn rows<'a>(items: &'a [[u32; 4]], times: &'a [i64; 4]) -> Vec<Row<'a>> {
        let row = |items: &'a [u32; 4]| {
            let from = items[0] as usize % 3; // of several lengths
            Row { items: &items[from..], times: &times[from..], cutoff: 10 * DAY, buys: items[3] == 1 }
        };
        items.iter().map(row).collect()
    }

    fn items(count: u32) -> Vec<[u32; 4]> {
        (0..count).map(|i| [1 + i % 3, 1 + i / 3 % 3, 1 + i / 9 % 3, 1 + i / 27 % 2]).collect()
    }

    #[test]
    fn it_learns_what_the_newest_event_says_and_padding_says_nothing() {
        let (items, times) = (items(216), [DAY, 2 * DAY, 3 * DAY, 4 * DAY]);
        let rows = rows(&items, &times);
        let (network, recipe) = choose_and_fit(&small(), &rows, &rows, &rows, 4, Device::Cpu, &UNWATCHED).unwrap();
        assert!((1..=12).contains(&recipe.epochs));
        let together = network.probabilities(&rows).unwrap();
        let labels: Vec<bool> = rows.iter().map(|row| row.buys).collect();
        assert!(rapport_evaluation::roc_auc(&labels, &together).unwrap() > 0.99);
        for (row, probability) in rows.iter().zip(&together).take(20) {
            let alone = network.probabilities(&[*row]).unwrap()[0];
            assert!((alone - probability).abs() < 1e-5, "{alone} {probability}");
        }
    }

    #[test]
    fn every_row_is_in_one_batch_of_a_pass() {
        let (items, times) = (items(101), [DAY; 4]);
        let rows = rows(&items, &times);
        let batches = batches(&rows, 16, &mut ChaCha8Rng::seed_from_u64(3));
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 101);
        assert!(batches.iter().all(|batch| batch.len() <= 16));
    }

    #[test]
    fn ages_double_from_bucket_to_bucket() {
        assert_eq!([-5, 0, DAY, 2 * DAY, 3 * DAY, 7 * DAY, 100_000 * DAY].map(age), [0, 0, 1, 1, 2, 3, AGES - 1]);
    }

    #[test]
    fn the_recipe_of_the_article_is_the_default_without_ages() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/learning/recipes/purchase.yaml");
        let recipe: PurchaseRecipe = serde_yaml_ng::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(recipe, PurchaseRecipe { ages: false, ..PurchaseRecipe::default() });
    }

    #[test]
    fn a_field_out_of_range_is_named() {
        assert!(small().check().is_ok());
        assert!(PurchaseRecipe { dropout: 1.0, ..small() }.check().unwrap_err().contains("dropout"));
        assert!(PurchaseRecipe { epochs: 0, ..small() }.check().unwrap_err().contains("epochs"));
    }
}

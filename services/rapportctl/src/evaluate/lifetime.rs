//! What the customers of a ledger will do: fits, a hold-out, and each customer's value.

use std::{collections::HashMap, thread};

use anyhow::{Context as _, anyhow, ensure};
use rapport_lifetime::{
    BgNbd, CustomerValue, Fit, GammaGamma, History, Holdout, Horizon, Independence, Interval, RepeatSpend, RfmScore,
    Scorer, Segment, Split, Summary, TimeUnit, independence,
};

use super::{calendar, transactions::Transactions};

/// A month in days, as the horizon counts it: a twelfth of a Julian year.
const MONTH_DAYS: f64 = 365.25 / 12.0;
/// Of the values' intervals.
pub const CONFIDENCE: f64 = 0.95;
/// Histories between two words on progress.
const BATCH: usize = 400;

/// What to fit, and how far to look.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub unit: TimeUnit,
    pub months: u32,
    /// Yearly: 0.1 is 10 %.
    pub discount: f64,
    /// The penalty of both fits; 0 is plain maximum likelihood.
    pub l2: f64,
    /// The last day that is known to the hold-out's fit.
    pub split: Option<i32>,
}

/// The hold-out: fitted on what was known at the split, judged by what came.
pub struct Judged {
    pub split: i32,
    pub fit: Fit<BgNbd, 4>,
    pub holdout: Holdout,
}

/// Both models, fitted on everything.
pub struct Fits {
    pub purchases: Fit<BgNbd, 4>,
    pub amounts: Fit<GammaGamma, 3>,
    /// `None` below three returning customers, or where none differs.
    pub independence: Option<Independence>,
}

/// A customer as of the last day.
#[derive(Debug, Clone, PartialEq)]
pub struct Customer {
    pub id: String,
    pub summary: Summary,
    pub outlook: Outlook,
    pub score: RfmScore,
    pub segment: Segment,
}

/// What the models say of one history.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlook {
    /// The chance that the customer has not left; 1 without a repeat.
    pub alive: f64,
    /// The chance of no purchase within the horizon.
    pub no_purchase: f64,
    /// Purchases to expect within the horizon.
    pub purchases: f64,
    /// What each of them is worth; `None` where the model's mean is infinite.
    pub amount: Option<f64>,
    /// Discounted, with its interval where the fits have standard errors.
    pub value: Option<f64>,
    pub interval: Option<Interval>,
}

/// Fits up to the split and compares with what came after.
///
/// # Errors
/// A split outside the observation, or nobody who came back before it.
pub fn judge(transactions: &Transactions, settings: &Settings) -> anyhow::Result<Option<Judged>> {
    let Some(split) = settings.split else { return Ok(None) };
    let (first, last) = (transactions.first_day, transactions.last_day);
    ensure!(
        (first..last).contains(&split),
        "the split {} is outside the data, which go from {} to {}: give a day from the first on and before the last",
        calendar::written(split),
        calendar::written(first),
        calendar::written(last)
    );
    let cut = Split::at(&transactions.ledger, split, last, settings.unit)?;
    let fit = BgNbd::fit(&cut.histories, settings.l2)
        .with_context(|| format!("fitting BG/NBD to what was known on {}", calendar::written(split)))?;
    let holdout = cut.judge(&fit.model)?;
    Ok(Some(Judged { split, fit, holdout }))
}

/// Fits both models to everything.
///
/// # Errors
/// Nobody came back, all amounts are one, or an optimiser that does not arrive.
pub fn fit(known: &[(&str, Summary)], settings: &Settings) -> anyhow::Result<Fits> {
    let histories = known.iter().map(|(_, of)| of.history(settings.unit)).collect::<Result<Vec<_>, _>>()?;
    let spends: Vec<RepeatSpend> = known.iter().filter_map(|(_, of)| of.repeat_spend()).collect();
    let purchases = BgNbd::fit(&histories, settings.l2).context("fitting BG/NBD")?;
    let amounts = GammaGamma::fit(&spends, settings.l2).context("fitting Gamma-Gamma")?;
    Ok(Fits { purchases, amounts, independence: independence(&spends).ok() })
}

/// The outlook, the scores and the segment of every customer; `progress` hears how many different
/// histories are done, and of how many.
///
/// # Errors
/// A horizon that is far longer than the history.
pub fn customers(
    known: &[(&str, Summary)],
    fits: &Fits,
    settings: &Settings,
    mut progress: impl FnMut(usize, usize),
) -> anyhow::Result<Vec<Customer>> {
    let horizon = Horizon::months(settings.months, settings.unit, settings.discount)?;
    let value = CustomerValue { purchases: fits.purchases.clone(), amounts: fits.amounts.clone(), horizon };
    let time = f64::from(settings.months) * MONTH_DAYS / settings.unit.days();
    let scorer = Scorer::of(&known.iter().map(|(_, summary)| *summary).collect::<Vec<_>>())?;

    // Many customers came once on the same day: each history is worked out once.
    let mut places: HashMap<Key, usize> = HashMap::new();
    let mut histories = Vec::new();
    let mut place_of = Vec::with_capacity(known.len());
    for (_, summary) in known {
        let (history, spend) = (summary.history(settings.unit)?, summary.repeat_spend());
        let place = *places.entry(key(&history, spend.as_ref())).or_insert(histories.len());
        if place == histories.len() {
            histories.push((history, spend));
        }
        place_of.push(place);
    }
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut outlooks: Vec<Outlook> = Vec::with_capacity(histories.len());
    for batch in histories.chunks(BATCH) {
        progress(outlooks.len(), histories.len());
        outlooks.extend(work_out(batch, &value, time, threads)?);
    }
    let customer = |((id, summary), place): (&(&str, Summary), usize)| {
        let score = scorer.score(summary);
        let outlook = *outlooks.get(place)?;
        Some(Customer { id: (*id).to_owned(), summary: *summary, outlook, score, segment: score.into() })
    };
    Ok(known.iter().zip(place_of).filter_map(customer).collect())
}

/// Equal for customers of whom the models know the same.
type Key = (u32, u64, u64, u64);

fn key(history: &History, spend: Option<&RepeatSpend>) -> Key {
    // No mean amount is zero, so zero stands for none.
    let amount = spend.map_or(0, |spend| spend.mean_amount().to_bits());
    (history.repeats(), history.recency().to_bits(), history.age().to_bits(), amount)
}

fn work_out(
    histories: &[(History, Option<RepeatSpend>)],
    value: &CustomerValue,
    time: f64,
    threads: usize,
) -> anyhow::Result<Vec<Outlook>> {
    let of_thread = histories.len().div_ceil(threads).max(1);
    let parts: Vec<anyhow::Result<Vec<Outlook>>> = thread::scope(|scope| {
        let started: Vec<_> = histories
            .chunks(of_thread)
            .map(|some| {
                scope.spawn(move || {
                    let all = some.iter().map(|(history, spend)| outlook(history, spend.as_ref(), value, time));
                    all.collect::<anyhow::Result<Vec<_>>>()
                })
            })
            .collect();
        started.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a thread died")))).collect()
    });
    let parts = parts.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    Ok(parts.into_iter().flatten().collect())
}

fn outlook(
    history: &History,
    spend: Option<&RepeatSpend>,
    value: &CustomerValue,
    time: f64,
) -> anyhow::Result<Outlook> {
    let purchases = &value.purchases.model;
    let [_, q, _] = value.amounts.model.parameters();
    // Of a customer without a repeat nothing but the mean of all is known, which is infinite then.
    let infinite = q <= 1.0 && spend.is_none();
    let certain = value.purchases.log_covariance.is_some() && value.amounts.log_covariance.is_some();
    let interval =
        if certain && !infinite { Some(value.interval(&[(*history, spend.copied())], CONFIDENCE)?) } else { None };
    Ok(Outlook {
        alive: purchases.alive(history),
        no_purchase: purchases.no_purchase_within(history, time)?,
        purchases: purchases.expected_purchases(history, time)?,
        amount: if infinite { None } else { Some(value.amounts.model.expected_amount(spend)?) },
        value: match interval {
            Some(interval) => Some(interval.value),
            None if infinite => None,
            None => Some(value.of(history, spend)?),
        },
        interval,
    })
}

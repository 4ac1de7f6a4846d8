//! What a customer who buys without a contract will do: nobody cancels, so whether a customer has
//! left is itself a guess.
//!
//! transactions -> [`Ledger`] (a fold, one [`Purchases`] per customer) -> [`Summary`] as of a day
//! -> [`BgNbd`] (how often, and whether still there) and [`GammaGamma`] (how much each time)
//! -> [`CustomerValue`] (discounted, with an interval). [`Holdout`] says how right the counts were;
//! [`Scorer`] names segments by recency, frequency and money.
//!
//! No clock, no I/O and no randomness: days come in with the transactions, and the same input gives
//! the same figures.
//!
//! Two words that are easily mixed up: `orders` are all orders of a customer (RFM's frequency);
//! `repeats` are the days with a purchase after the first one (BG/NBD's frequency).

mod bg_nbd;
mod error;
mod fit;
mod gamma_gamma;
mod holdout;
mod likelihood;
mod minimise;
mod purchases;
mod segments;
mod special;
mod symmetric;
mod value;

pub use bg_nbd::{BgNbd, History};
pub use error::Error;
pub use fit::{Fit, Warning};
pub use gamma_gamma::{GammaGamma, Independence, RepeatSpend, independence};
pub use holdout::{FrequencyGroup, Holdout, Split};
pub use purchases::{Ledger, Purchases, Summary, TimeUnit};
pub use segments::{QuintileEdges, RfmScore, Scorer, Segment};
pub use special::hyp2f1;
pub use value::{CustomerValue, Horizon, Interval};

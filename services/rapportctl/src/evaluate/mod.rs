//! Models of customer tables and of purchases, from files: no service takes part.
//!
//! A table: [`recipe`] and [`examples`] -> [`held_out`] probabilities -> [`judgement`] ->
//! [`tabular_report`]; the best model is kept as a [`stored_model`].
//! Who buys next: [`orders`] -> rows at a [`point_in_time`] (with their [`goods`]) with outcomes, a [`moment`] ->
//! models of the [`choices`] fitted [`forward`] -> [`judgement`].
//! Purchases: [`transactions`] (with dates by the [`calendar`]) -> [`lifetime`] -> [`lifetime_report`].
//! Either way [`shown`] prints the report and [`whole_file`] writes what is to stay.

pub mod calendar;
pub mod choices;
pub mod examples;
pub mod forward;
pub mod goods;
pub mod held_out;
pub mod judgement;
pub mod lifetime;
pub mod lifetime_report;
pub mod moment;
pub mod orders;
pub mod point_in_time;
pub mod recipe;
pub mod shown;
pub mod stored_model;
pub mod tabular_report;
pub mod transactions;
pub mod whole_file;

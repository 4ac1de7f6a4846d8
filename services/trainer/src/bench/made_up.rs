//! A version of a network that has learned nothing: it costs what a trained one costs.

use std::{collections::BTreeMap, fs, path::PathBuf};

use rapport_events::{EventTime, Tenant};
use rapport_registry::{Description, Gate, ItemTable, Neighbours, Registry, Verdict, files};

use super::Error;
use crate::{
    export::Graph,
    models::sequence::{Sequence, SequenceRecipe, encoders::LIGR},
};

/// Weights are drawn from this.
const SEED: i64 = 42;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Items, called item-0000001 and so on
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    items: u32,

    /// Components of an item's vector
    #[arg(long, default_value_t = 64)]
    dim: i64,

    #[arg(long)]
    registry_dir: PathBuf,

    #[arg(long, default_value = "demo")]
    tenant: Tenant,

    #[arg(long, default_value = "next-item")]
    name: String,

    #[arg(long, default_value = "made-up")]
    version: String,
}

/// Writes the version into the registry: a `ligr` of the default size but for the vectors, in one part and in two.
pub fn write(args: &Args) -> Result<(), Error> {
    tch::manual_seed(SEED);
    let (items, kind) = (args.items as usize, LIGR.name);
    let recipe = SequenceRecipe { dim: args.dim, hidden: 2 * args.dim, ..SequenceRecipe::quick() };
    let model = Sequence::untrained(&LIGR, &recipe, items + 1);
    let mut ids = vec![String::new()];
    ids.extend((1..=items).map(|item| format!("item-{item:07}")));
    let table = ItemTable::from_ids(ids).map_err(Error::MadeUp)?;
    let gate = Gate { passed: true, reason: "made up: it has learned nothing".into() };
    let verdict = Verdict { metrics: BTreeMap::new(), gate };
    let now = EventTime::now().to_string();
    let description = Description::next_item(kind, now, recipe.sequence_length, items, verdict);
    let registry = Registry::open(&args.registry_dir)?;
    registry.write::<Error>(&args.tenant, &args.name, &args.version, description, |folder| {
        let file = |name: &str, bytes: &[u8]| {
            fs::write(folder.join(name), bytes).map_err(|source| Error::File { path: folder.join(name), source })
        };
        let mut graph = Graph::default();
        let scores = model.export(&mut graph)?;
        file(files::MODEL, &graph.finish(&scores, kind, items + 1, recipe.sequence_length))?;
        let mut graph = Graph::default();
        let factors = model.factors(&mut graph)?;
        if let Some(parts) = graph.finish_query(&factors, files::VECTORS, kind, recipe.sequence_length) {
            file(files::QUERY, &parts.graph)?;
            file(files::VECTORS, &parts.vectors)?;
        }
        file(files::ITEMS, &table.to_json())?;
        file(files::NEIGHBOURS, &Neighbours::default().to_json())
    })?;
    Ok(())
}

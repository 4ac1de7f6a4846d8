//! How well the text of an item that nobody has acted on tells who will like it, on files of interactions and
//! items as RecBole has them (MovieLens).
//!
//! A share of the items is drawn to be new: no model would know them. Events are gone through in the order of
//! time. Whenever a customer with five items or more likes a new item (a rating of 4 or 5) that has fewer than
//! `--acted` events so far, all new items of which that is true, and which the customer has not had, are put in
//! an order by text, by what is trending among them (a half-life of 7 days), and as the scorer keeps them: what is
//! trending first, if it has a word in common with the history, and then by text. A hit: the liked one is among
//! the first ten.
#![allow(clippy::print_stdout, reason = "figures are its output")]

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use clap::Parser;
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use rapport_scorer::{
    catalog::{Entry, TenantCatalog},
    cold_start::{NewItems, text},
};

const PLACES: usize = 10;
const LEAST_HISTORY: usize = 5;
const LIKED: f64 = 4.0;
const HALF_LIFE_S: f64 = 7.0 * 86_400.0;

#[derive(Debug, Parser)]
struct Args {
    /// A folder with <name>.inter and <name>.item
    folder: PathBuf,
    /// Share of the items that are new
    #[arg(long, default_value_t = 0.2)]
    share: f64,
    /// An item is new while it has fewer events than this
    #[arg(long, default_value_t = 5)]
    acted: usize,
    /// Draws, from seed 0 on
    #[arg(long, default_value_t = 3)]
    draws: u64,
}

struct Event {
    customer: String,
    item: String,
    rating: f64,
    at: f64,
}

fn main() -> Result<(), String> {
    let args = Args::parse();
    let (items, events) = (read_items(&args.folder)?, read_events(&args.folder)?);
    for seed in 0..args.draws {
        let Found { asked, text, trending, both, by_chance } = measure(&items, &events, &args, seed);
        let share = |hits: f64| hits / asked.max(1) as f64;
        println!(
            "draw {seed}: {asked} likes; in the first {PLACES}: by text {:.4}, trending {:.4}, both {:.4}, by chance {:.4}",
            share(text as f64),
            share(trending),
            share(both as f64),
            share(by_chance)
        );
    }
    Ok(())
}

#[derive(Default)]
struct Found {
    asked: usize,
    text: usize,
    trending: f64,
    both: usize,
    /// Hits to be expected of an order by chance.
    by_chance: f64,
}

fn measure(items: &[(String, Entry)], events: &[Event], args: &Args, seed: u64) -> Found {
    let catalog = TenantCatalog::default();
    items.iter().for_each(|(item, entry)| catalog.put(item, entry.clone()));
    let mut ids: Vec<&str> = items.iter().map(|(item, _)| item.as_str()).collect();
    ids.sort_unstable();
    ids.shuffle(&mut StdRng::seed_from_u64(seed));
    ids.truncate((items.len() as f64 * args.share) as usize);
    let drawn: HashSet<&str> = ids.into_iter().collect();
    let index = NewItems::of(&catalog, items.len(), |item| !drawn.contains(item));

    let mut found = Found::default();
    let mut histories: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut had: HashMap<&str, HashSet<&str>> = HashMap::new();
    // Events so far, decayed interest and when that was.
    let mut acted: HashMap<&str, (usize, f64, f64)> = drawn.iter().map(|item| (*item, (0, 0.0, 0.0))).collect();
    for Event { customer, item, rating, at } in events {
        let history = histories.entry(customer).or_default();
        let Some(&(times, interest, before)) = acted.get(item.as_str()) else {
            history.push(item);
            continue;
        };
        let had = had.entry(customer).or_default();
        if times < args.acted && *rating >= LIKED && history.len() >= LEAST_HISTORY {
            let open =
                |item: &str| acted.get(item).is_some_and(|(times, ..)| *times < args.acted) && !had.contains(item);
            let mut near = index.near(&catalog.texts(history), items.len(), open);
            let of = |item: &str| acted.get(item).map_or(0.0, |(_, sum, then)| faded(*sum, at - then));
            let candidates = acted.keys().filter(|item| open(item));
            let own = of(item);
            let better = acted.keys().filter(|other| open(other) && of(other) > own).count();
            let equal = acted.keys().filter(|other| open(other) && of(other) == own).count();
            found.asked += 1;
            found.text += usize::from(near.iter().take(PLACES).any(|(near, _)| ***near == **item));
            // Stable: what nobody has acted on keeps its order by text.
            near.sort_by(|(a, _), (b, _)| of(b).total_cmp(&of(a)));
            found.both += usize::from(near.iter().take(PLACES).any(|(near, _)| ***near == **item));
            // Equals stand in an order by chance.
            found.trending += (PLACES.saturating_sub(better) as f64 / equal.max(1) as f64).min(1.0);
            found.by_chance += (PLACES as f64 / candidates.count().max(1) as f64).min(1.0);
        }
        had.insert(item);
        acted.insert(item, (times + 1, faded(interest, at - before) + 1.0, *at));
    }
    found
}

fn faded(sum: f64, age_s: f64) -> f64 {
    sum * (-age_s / HALF_LIFE_S).exp2()
}

/// The file with this ending, without its header, in fields.
fn rows(folder: &Path, ending: &str) -> Result<Vec<Vec<String>>, String> {
    let mut files = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?.flatten();
    let file = files.find(|file| file.path().extension().is_some_and(|of| of == ending));
    let path = file.ok_or_else(|| format!("{} has no file .{ending}", folder.display()))?.path();
    let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

fn read_items(folder: &Path) -> Result<Vec<(String, Entry)>, String> {
    let item = |fields: Vec<String>| {
        let [item, title, .., genres] = fields.as_slice() else { return Err(format!("no item: {fields:?}")) };
        let categories: Vec<String> = genres.split(' ').map(str::to_owned).collect();
        let text = text::terms(title, &categories, "");
        Ok((item.clone(), Entry { title: title.clone(), categories, text, available: true, ..Entry::default() }))
    };
    rows(folder, "item")?.into_iter().map(item).collect()
}

fn read_events(folder: &Path) -> Result<Vec<Event>, String> {
    let event = |fields: Vec<String>| {
        let [customer, item, rating, at] = fields.as_slice() else { return Err(format!("no event: {fields:?}")) };
        let number = |text: &str| text.trim().parse::<f64>().map_err(|error| format!("{text:?}: {error}"));
        Ok(Event { customer: customer.clone(), item: item.clone(), rating: number(rating)?, at: number(at)? })
    };
    let mut events = rows(folder, "inter")?.into_iter().map(event).collect::<Result<Vec<_>, String>>()?;
    events.sort_by(|a, b| a.at.total_cmp(&b.at));
    Ok(events)
}

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use rapport_proto::{catalog::Item, collect::PutItemsRequest, events::Event};
use serde_json::{Value, json};

use crate::{
    account::{self, Account, EventKey, Range, Wanted},
    blocking::on_thread,
    commands::account::Waiting,
    context::Context,
    error::{self, Usage},
    lane::{self, Batch, Via},
    movielens::{self, Movie, Rating},
    output::{self, Progress, per_second, thousands},
    scan::{Isolation, Offsets, Scan},
};

/// Events of one request on the collector's stream.
const BATCH: usize = 500;
/// Items of one `PutItems` call.
const ITEM_BATCH: usize = 500;

#[derive(Debug, Args)]
pub struct Movielens {
    /// The folder with the two files
    folder: PathBuf,
    /// Which way the ratings go: every other one each by default
    #[arg(long, value_enum, default_value_t = Via::Both)]
    via: Via,
    /// Only the oldest N ratings
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Do not wait for the mesh to catch up, and take no account
    #[arg(long)]
    no_account: bool,
    #[command(flatten)]
    waiting: Waiting,
}

/// The two files, read and parsed.
struct Files {
    movies: Vec<Movie>,
    ratings: Vec<Rating>,
}

/// What one lane did, for the report.
struct Sent {
    name: &'static str,
    acknowledged: u64,
    again: u64,
    refused: u64,
    reasons: Vec<String>,
    p50: Duration,
    p99: Duration,
}

impl Movielens {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut files = read_folder(&self.folder)?;
        files.ratings.truncate(self.limit.unwrap_or(usize::MAX));
        let (movies, ratings) = (files.movies.len() as u64, files.ratings.len() as u64);
        context.output.note(format!(
            "{} movies, {} ratings in {}",
            thousands(movies),
            thousands(ratings),
            self.folder.display()
        ));

        context.ensure_topics().await?;
        let genres: HashMap<&str, &str> = files
            .movies
            .iter()
            .filter_map(|movie| Some((movie.item.as_str(), movie.genres.first()?.as_str())))
            .collect();
        let events: Vec<Event> =
            files.ratings.iter().map(|rating| event(rating, genres.get(rating.item.as_str()).copied())).collect();
        let from = raw_ends(context).await?;

        put_items(context, &files.movies, self.waiting.patience).await?;
        let started = Instant::now();
        let wanted: HashSet<EventKey> = events
            .iter()
            .map(|event| EventKey { tenant: context.tenant.to_string(), id: event.event_id.clone() })
            .collect();
        let sent = send(context, events, self.via, self.waiting.patience).await?;
        let took = started.elapsed();
        let until = raw_ends(context).await?;

        let refused: u64 = sent.iter().map(|lane| lane.refused).sum();
        let account = if self.no_account {
            None
        } else {
            let asked_for = if refused == 0 { Wanted::Only(wanted) } else { Wanted::All };
            Some(settle(context, &self.waiting, Range { from, until }, asked_for).await?)
        };
        report(context, movies, ratings, took, &sent, account.as_ref());
        if refused > 0 {
            let reasons: Vec<&str> = sent.iter().flat_map(|lane| lane.reasons.iter().map(String::as_str)).collect();
            bail!("{refused} ratings were refused, for example: {}", reasons.join("; "));
        }
        match account {
            Some(account) if !account.balances() => bail!("the account does not balance: {account}"),
            _ => Ok(()),
        }
    }
}

/// # Errors
/// The folder does not hold exactly one `.inter` and one `.item` file, or a line of them is wrong.
fn read_folder(folder: &Path) -> anyhow::Result<Files> {
    let (inter, inter_text) = read_only_file(folder, "inter")?;
    let (item, item_text) = read_only_file(folder, "item")?;
    Ok(Files { movies: movielens::movies(&item, &item_text)?, ratings: movielens::ratings(&inter, &inter_text)? })
}

/// Name and content of the one file with this extension.
fn read_only_file(folder: &Path, extension: &str) -> anyhow::Result<(String, String)> {
    let listing = std::fs::read_dir(folder)
        .map_err(|e| Usage(format!("cannot read the folder {}: {e}; try: make setup", folder.display())))?;
    let mut found = Vec::new();
    for entry in listing {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    let [path] = found.as_slice() else {
        let count = found.len();
        let folder = folder.display();
        return Err(
            Usage(format!("{folder} must hold one .{extension} file, it holds {count}; try: make setup")).into()
        );
    };
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match String::from_utf8(bytes) {
        Ok(text) => Ok((name, text)),
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
            bail!("{name}:{line}: is not UTF-8; try: iconv -f latin1 -t utf-8")
        }
    }
}

/// A rating as an event: its id is made of the row, so that importing again gives duplicates.
fn event(rating: &Rating, first_genre: Option<&str>) -> Event {
    let seconds = rating.time.as_ms().div_euclid(1000);
    Event {
        event_id: format!("ml100k-{}-{}-{seconds}", rating.user, rating.item),
        r#type: "rating".to_owned(),
        customer_id: rating.user.clone(),
        item_id: rating.item.clone(),
        category: first_genre.unwrap_or_default().to_owned(),
        event_time: Some(rating.time.to_proto()),
        value: Some(rating.rating),
        ..Event::default()
    }
}

async fn raw_ends(context: &Context) -> anyhow::Result<Offsets> {
    let kafka = context.kafka.clone();
    on_thread("raw-ends", move || Scan::open(&kafka, Isolation::Committed)?.ends(&kafka.topics().raw)).await
}

/// Publishes the items, again as long as the collector asks for it.
async fn put_items(context: &Context, movies: &[Movie], patience: Duration) -> anyhow::Result<()> {
    let progress = Progress::start("items", movies.len() as u64, "items");
    let mut client = context.collector()?;
    let mut done = 0u64;
    for chunk in movies.chunks(ITEM_BATCH) {
        let items: Vec<Item> = chunk
            .iter()
            .map(|movie| Item {
                item_id: movie.item.clone(),
                title: movie.title.clone(),
                categories: movie.genres.clone(),
                available: true,
                ..Item::default()
            })
            .collect();
        let request = PutItemsRequest { items, remove_item_ids: Vec::new() };
        let started = Instant::now();
        let mut attempt = 0;
        loop {
            match client.put_items(context.request(request.clone())?).await {
                Ok(answer) => {
                    done += u64::from(answer.into_inner().accepted);
                    break;
                }
                Err(status) if error::retryable(&status) && started.elapsed() < patience => {
                    tokio::time::sleep(lane::backoff(attempt)).await;
                    attempt += 1;
                }
                Err(status) => return Err(context.collector_refused(&status)),
            }
        }
        progress.at(done);
    }
    progress.finish(done);
    Ok(())
}

/// Sends the events in their order, one after the other into each lane in turn. The lanes hold few
/// batches, so they stay within a few thousand events of each other; a customer's events may swap
/// places by that much, and everything downstream orders by event time.
async fn send(context: &Context, events: Vec<Event>, via: Via, patience: Duration) -> anyhow::Result<Vec<Sent>> {
    let mut lanes = lane::open(context, via, patience)?;
    let total = events.len() as u64;
    let progress = Progress::start("ratings", total, "events");
    let tallies: Vec<_> = lanes.iter().map(|lane| (lane.name, Arc::clone(&lane.tally))).collect();
    let settled = || -> u64 { tallies.iter().map(|(_, tally)| tally.acknowledged() + tally.refused().0).sum() };

    let mut filling: Vec<Vec<Event>> = lanes.iter().map(|_| Vec::with_capacity(BATCH)).collect();
    let count = lanes.len();
    for (row, event) in events.into_iter().enumerate() {
        let turn = row % count;
        filling[turn].push(event);
        if filling[turn].len() == BATCH {
            let events = std::mem::replace(&mut filling[turn], Vec::with_capacity(BATCH));
            lanes[turn].send(Batch { events, since: Instant::now(), receipt: None }).await?;
            progress.at(settled());
        }
    }
    for (lane, events) in lanes.iter_mut().zip(filling) {
        if !events.is_empty() {
            lane.send(Batch { events, since: Instant::now(), receipt: None }).await?;
        }
    }

    // Everything is handed over; the last acknowledgements are on their way.
    for lane in lanes {
        let mut finish = std::pin::pin!(lane.finish());
        loop {
            tokio::select! {
                result = &mut finish => {
                    result?;
                    break;
                }
                () = tokio::time::sleep(Duration::from_millis(100)) => {
                    progress.at(settled());
                }
            }
        }
    }
    let mut sent = Vec::new();
    for (name, tally) in tallies {
        let (refused, reasons) = tally.refused();
        sent.push(Sent {
            name,
            acknowledged: tally.acknowledged(),
            again: tally.again(),
            refused,
            reasons,
            p50: tally.latency(0.5),
            p99: tally.latency(0.99),
        });
    }
    progress.finish(sent.iter().map(|lane| lane.acknowledged).sum());
    Ok(sent)
}

/// Waits for the cleaner, takes the account, then waits for the feature store.
async fn settle(context: &Context, waiting: &Waiting, range: Range, wanted: Wanted) -> anyhow::Result<Account> {
    let (kafka, tenant, waiting) = (context.kafka.clone(), context.tenant.clone(), waiting.clone());
    on_thread("account", move || {
        let topics = kafka.topics();
        let received = account::receive(&kafka, &tenant, &range, wanted)?;
        account::wait_for_group(&kafka, &waiting.cleaner_group, &topics.raw, &received.ends, waiting.patience)?;
        let (account, clean_ends) = received.settle(&kafka)?;
        for group in &waiting.feature_store_groups {
            account::wait_for_group(&kafka, group, &topics.clean, &clean_ends, waiting.patience)?;
        }
        Ok(account)
    })
    .await
}

fn report(context: &Context, movies: u64, ratings: u64, took: Duration, sent: &[Sent], account: Option<&Account>) {
    let acknowledged: u64 = sent.iter().map(|lane| lane.acknowledged).sum();
    let lane_json = |lane: &Sent| -> Value {
        json!({
            "via": lane.name, "acknowledged": lane.acknowledged, "sent_again": lane.again, "refused": lane.refused,
            "ack_p50_s": lane.p50.as_secs_f64(), "ack_p99_s": lane.p99.as_secs_f64(), "reasons": lane.reasons,
        })
    };
    context.output.answer(
        || {
            json!({
                "items": movies, "events": ratings, "acknowledged": acknowledged, "seconds": took.as_secs_f64(),
                "lanes": sent.iter().map(lane_json).collect::<Vec<_>>(), "account": account.map(Account::to_json),
            })
        },
        |page| {
            for lane in sent {
                page.line(format!(
                    "{:>6}: {} acknowledged, {} sent again, {} refused; acknowledged after p50 {} p99 {}",
                    lane.name,
                    thousands(lane.acknowledged),
                    thousands(lane.again),
                    thousands(lane.refused),
                    output::human(lane.p50),
                    output::human(lane.p99),
                ));
            }
            page.line(format!(
                "{} of {} ratings acknowledged in {} ({}/s)",
                thousands(acknowledged),
                thousands(ratings),
                output::human(took),
                thousands(per_second(acknowledged, took))
            ));
            if let Some(account) = account {
                page.line(format!("account: {account}"));
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    const INTER: &[u8] = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n7\t1\t4\t881250949\n";
    const ITEM: &[u8] =
        b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n1\tToy Story\t1995\tAnimation\n";

    #[test]
    fn a_row_has_the_same_event_id_every_time() {
        let folder = folder(&[("ml.inter", INTER), ("ml.item", ITEM)]);
        let files = read_folder(folder.path()).unwrap();
        let made = event(&files.ratings[0], Some("Animation"));
        assert_eq!(made.event_id, "ml100k-7-1-881250949");
        assert_eq!((made.value, made.category.as_str()), (Some(4.0), "Animation"));
        assert_eq!(made, event(&files.ratings[0], Some("Animation")));
    }

    #[test]
    fn a_folder_without_the_files_is_a_usage_error_that_says_what_to_do() {
        let empty = folder(&[("ml.item", ITEM)]);
        let error = read_folder(empty.path()).err().unwrap();
        assert!(error.downcast_ref::<Usage>().is_some());
        assert!(error.to_string().contains("one .inter file") && error.to_string().contains("make setup"));
    }

    #[test]
    fn a_file_that_is_not_utf8_names_the_line() {
        let folder = folder(&[("ml.inter", INTER), ("ml.item", b"item_id\nA\nm\xe9tro\n")]);
        assert!(read_folder(folder.path()).err().unwrap().to_string().starts_with("ml.item:3: is not UTF-8"));
    }
}

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use comfy_table::Cell;
use prost::Message as _;
use rapport_events::Position;
use rapport_proto::events::{Coordinates, DeadLetter};
use rdkafka::Message as _;
use serde_json::{Value, json};

use super::time_text;
use crate::{
    account::parse_position,
    blocking::on_thread,
    context::Context,
    output,
    scan::{Isolation, Offsets, Scan},
};

/// Original bytes that `show` prints without --all.
const SHOWN_BYTES: usize = 512;

#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// The newest ones, with their reasons
    List(List),
    /// One of them whole: reason, headers, original bytes
    Show(Show),
}

#[derive(Debug, Args)]
pub struct List {
    /// How many
    #[arg(long, short = 'n', default_value_t = 20)]
    limit: usize,
    /// Only of this tenant, not of all
    #[arg(long)]
    only_tenant: bool,
}

#[derive(Debug, Args)]
pub struct Show {
    /// Where it stands on the dead topic, as partition:offset (the first column of `list`)
    #[arg(value_parser = place)]
    at: Position,
    /// All of the original bytes
    #[arg(long)]
    all: bool,
}

fn place(text: &str) -> Result<Position, String> {
    parse_position(text).ok_or_else(|| format!("{text:?} is not partition:offset, for example 0:12"))
}

impl DeadLetters {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::List(list) => list.run(context).await,
            Self::Show(show) => show.run(context).await,
        }
    }
}

/// The dead letters between the offsets.
async fn read(context: &Context, from: Offsets, until: Offsets) -> anyhow::Result<Vec<(Position, DeadLetter)>> {
    let kafka = context.kafka.clone();
    on_thread("dead-letters", move || {
        let topic = kafka.topics().dead;
        let mut letters = Vec::new();
        Scan::open(&kafka, Isolation::Committed)?.read(&topic, &from, &until, |record| {
            let position = Position { partition: record.partition(), offset: record.offset() };
            let letter = DeadLetter::decode(record.payload().unwrap_or_default())
                .with_context(|| format!("{topic} {}:{} is no dead letter", position.partition, position.offset))?;
            letters.push((position, letter));
            Ok(())
        })?;
        Ok(letters)
    })
    .await
}

impl List {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut letters = read(context, Offsets::new(), Offsets::new()).await?;
        if self.only_tenant {
            letters.retain(|(_, letter)| letter.tenant == context.tenant.as_str());
        }
        let all = letters.len();
        letters.sort_by_key(|(position, letter)| {
            let time = letter.failed_at.unwrap_or_default();
            std::cmp::Reverse((time.seconds, time.nanos, *position))
        });
        letters.truncate(self.limit);
        context.output.answer(
            || letters.iter().map(|(position, letter)| letter_json(*position, letter)).collect(),
            |page| {
                if letters.is_empty() {
                    page.line("there are none");
                    return;
                }
                let mut table = output::table(["at", "when", "tenant", "kind", "field", "reason"]);
                for (position, letter) in &letters {
                    table.add_row(vec![
                        Cell::new(format!("{}:{}", position.partition, position.offset)),
                        Cell::new(time_text(letter.failed_at.as_ref()).unwrap_or_default()),
                        Cell::new(&letter.tenant),
                        Cell::new(kind(letter)),
                        Cell::new(&letter.field),
                        Cell::new(&letter.reason),
                    ]);
                }
                page.table(&table);
                page.line(format!(
                    "{} of {all}, newest first; one whole: rapportctl dead-letters show AT",
                    letters.len()
                ));
            },
        );
        Ok(())
    }
}

impl Show {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Position { partition, offset } = self.at;
        let topic = context.kafka.topics().dead;
        // The other partitions are read from their ends: not at all.
        let kafka = context.kafka.clone();
        let mut from =
            on_thread("ends", move || Scan::open(&kafka, Isolation::Committed)?.ends(&kafka.topics().dead)).await?;
        if !from.contains_key(&partition) {
            bail!("{topic} has no partition {partition}; it has {}", from.len());
        }
        from.insert(partition, offset);
        let found = read(context, from, Offsets::from([(partition, offset + 1)])).await?;
        let Some((position, letter)) = found.into_iter().find(|(position, _)| *position == self.at) else {
            bail!("{topic} has no record at {partition}:{offset}; try: rapportctl dead-letters list");
        };
        context.output.answer(
            || letter_json(position, &letter),
            |page| {
                page.line(format!("{}: {}", kind(&letter), letter.reason));
                for (name, value) in [
                    ("field", letter.field.clone()),
                    ("stage", format!("{}, version {}", letter.stage, letter.processor_version)),
                    ("tenant", letter.tenant.clone()),
                    ("failed at", time_text(letter.failed_at.as_ref()).unwrap_or_default()),
                    ("raw record", source(&letter)),
                    ("key", letter.original_key.as_deref().map_or("none".to_owned(), readable)),
                ] {
                    page.line(format!("{name:>12}  {value}"));
                }
                for header in &letter.original_headers {
                    let value = header.value.as_deref().map_or("no value".to_owned(), readable);
                    page.line(format!("{:>12}  {}: {value}", "header", header.name));
                }
                let value = &letter.original_value;
                let shown = if self.all { value.len() } else { value.len().min(SHOWN_BYTES) };
                page.line(format!("{:>12}  {} bytes", "value", value.len()));
                if let Ok(text) = std::str::from_utf8(value)
                    && !text.is_empty()
                    && !text.chars().any(|c| c.is_control() && !c.is_whitespace())
                {
                    page.line(if self.all { text.to_owned() } else { text.chars().take(SHOWN_BYTES).collect() });
                } else {
                    page.line(hex_dump(&value[..shown]).trim_end());
                }
                if shown < value.len() {
                    page.line("the rest: --all");
                }
            },
        );
        Ok(())
    }
}

fn kind(letter: &DeadLetter) -> String {
    letter.kind().as_str_name().trim_start_matches("KIND_").to_lowercase()
}

fn source(letter: &DeadLetter) -> String {
    let place = |at: &Coordinates| format!("{} {}:{}", at.topic, at.partition, at.offset);
    letter.source.as_ref().map_or("none: it was refused at the door".to_owned(), place)
}

fn letter_json(position: Position, letter: &DeadLetter) -> Value {
    let headers: Vec<Value> = letter
        .original_headers
        .iter()
        .map(|header| json!({ "name": header.name, "value": header.value.as_deref().map(readable) }))
        .collect();
    json!({
        "at": format!("{}:{}", position.partition, position.offset), "kind": kind(letter), "field": letter.field,
        "reason": letter.reason, "stage": letter.stage, "processor_version": letter.processor_version,
        "tenant": letter.tenant, "failed_at": time_text(letter.failed_at.as_ref()), "source": letter.source.as_ref().map(|_| source(letter)),
        "original_key": letter.original_key.as_deref().map(readable), "original_headers": headers,
        "original_value_hex": hex(&letter.original_value), "original_value_utf8": std::str::from_utf8(&letter.original_value).ok(),
    })
}

/// Text where the bytes are text, hex where not.
fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("0x{}", hex(bytes)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a String cannot fail.
        write!(out, "{byte:02x}").ok();
        out
    })
}

/// Sixteen bytes to a line: where, what, and as characters.
fn hex_dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (line, chunk) in bytes.chunks(16).enumerate() {
        let cells: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            chunk.iter().map(|&byte| if (0x20..0x7f).contains(&byte) { char::from(byte) } else { '.' }).collect();
        out += &format!("{:08x}  {:<47}  |{text}|\n", line * 16, cells.join(" "));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_shown_as_hexdump_shows_them() {
        let dump = hex_dump(b"hello\x00\xff world, more");
        assert!(
            dump.starts_with("00000000  68 65 6c 6c 6f 00 ff 20 77 6f 72 6c 64 2c 20 6d  |hello.. world, m|\n"),
            "{dump}"
        );
        assert!(dump.contains("00000010  6f 72 65"));
    }

    #[test]
    fn a_header_that_is_no_text_is_shown_as_hex() {
        assert_eq!(readable(b"demo"), "demo");
        assert_eq!(readable(&[0xff, 0x01]), "0xff01");
    }

    proptest! {
        #[test]
        fn every_letter_can_be_shown(value: Vec<u8>, key: Option<Vec<u8>>) {
            let letter = DeadLetter { original_value: value.clone(), original_key: key, ..DeadLetter::default() };
            let shown = letter_json(Position { partition: 0, offset: 1 }, &letter);
            prop_assert_eq!(shown["original_value_hex"].as_str().unwrap().len(), value.len() * 2);
            let _ = hex_dump(&value);
        }
    }
}

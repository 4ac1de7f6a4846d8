use std::fmt::Write as _;

use anyhow::bail;
use clap::Args;
use rapport_events::Position;
use rapport_proto::events::DeadLetter;
use serde_json::{Value, json};

use super::{Reading, failed_at, hint::hint, kind, place, rule, source};
use crate::{
    account::place_text,
    blocking::on_thread,
    commands::time_text,
    context::Context,
    original::{self, Original},
    output::{self, Page},
    replay::Ledger,
    scan::Offsets,
};

/// Original bytes that are printed without --all.
const SHOWN_BYTES: usize = 512;

#[derive(Debug, Args)]
pub struct Show {
    /// Where it stands on the dead topic, as partition:offset (the first column of `list`)
    #[arg(value_parser = place)]
    at: Position,
    /// All of the original bytes, and as bytes
    #[arg(long)]
    all: bool,
}

impl Show {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let at = self.at;
        let kafka = context.kafka.clone();
        let (letter, replayed) = on_thread("dead-letter", move || {
            let letter = one(&mut Reading::open(&kafka)?, at)?;
            let replayed = Ledger::read(&kafka)?.of(at, failed_at(&letter)).cloned();
            Ok((letter, replayed))
        })
        .await?;
        context.output.answer(
            || {
                let mut json = letter_json(at, &letter);
                json["hint"] = json!(hint(&letter));
                json["replayed_as"] = json!(replayed.as_ref().map(|entry| &entry.raw));
                json
            },
            |page| {
                page.line(format!("{}: {}", kind(&letter), letter.reason));
                page.line(format!("{:>12}  {}", "what to do", hint(&letter)));
                for (name, value) in [
                    ("field", letter.field.clone()),
                    ("rule", rule(&letter)),
                    ("step", format!("{} of {}", letter.stage, letter.processor_version)),
                    ("tenant", letter.tenant.clone()),
                    ("failed at", time_text(letter.failed_at.as_ref()).unwrap_or_default()),
                    ("raw record", source(&letter)),
                    ("replayed as", replayed.as_ref().map_or(String::new(), |entry| format!("raw {}", entry.raw))),
                    ("key", letter.original_key.as_deref().map_or("none".to_owned(), readable)),
                ] {
                    if !value.is_empty() {
                        page.line(format!("{name:>12}  {value}"));
                    }
                }
                for header in &letter.original_headers {
                    let value = header.value.as_deref().map_or("no value".to_owned(), readable);
                    page.line(format!("{:>12}  {}: {value}", "header", header.name));
                }
                show_original(page, &letter, self.all);
                if !letter.withheld && replayed.is_none() {
                    page.line(format!("\nto send it again: rapportctl dead-letters replay {}", place_text(at)));
                }
            },
        );
        Ok(())
    }
}

/// The letter that stands there.
fn one(reading: &mut Reading, at: Position) -> anyhow::Result<DeadLetter> {
    let topic = reading.topic.clone();
    // The other partitions are read from their ends: not at all.
    let mut from = reading.scan.ends(&topic)?;
    if !from.contains_key(&at.partition) {
        bail!("{topic} has no partition {}; it has {}", at.partition, from.len());
    }
    from.insert(at.partition, at.offset);
    let mut found = None;
    reading.all(&from, &Offsets::from([(at.partition, at.offset.saturating_add(1))]), |place, letter| {
        if place == at {
            found = Some(letter);
        }
        Ok(())
    })?;
    match found {
        Some(letter) => Ok(letter),
        None => bail!("{topic} has no dead letter at {}; try: rapportctl dead-letters list", place_text(at)),
    }
}

fn show_original(page: &mut Page, letter: &DeadLetter, all: bool) {
    let value = &letter.original_value;
    if letter.withheld {
        page.line(format!("{:>12}  withheld", "value"));
        return;
    }
    page.line(format!("{:>12}  {} bytes", "value", output::thousands(value.len() as u64)));
    let text = match original::read(letter) {
        Original::Event(event) if !all => format!("{:#}", original::event_json(&event)),
        Original::Json(json) if !all => format!("{json:#}"),
        Original::Json(_) | Original::Text(_) => String::from_utf8_lossy(value).into_owned(),
        Original::Event(_) | Original::Bytes => {
            let shown = if all { value.len() } else { value.len().min(SHOWN_BYTES) };
            page.line(hex_dump(&value[..shown]).trim_end());
            if shown < value.len() {
                page.line("the rest: --all");
            }
            return;
        }
    };
    if all || text.chars().count() <= 4 * SHOWN_BYTES {
        page.line(text);
    } else {
        page.line(text.chars().take(4 * SHOWN_BYTES).collect::<String>());
        page.line("the rest: --all");
    }
}

pub fn letter_json(position: Position, letter: &DeadLetter) -> Value {
    let headers: Vec<Value> = letter
        .original_headers
        .iter()
        .map(|header| json!({ "name": header.name, "value": header.value.as_deref().map(readable) }))
        .collect();
    json!({
        "at": place_text(position), "kind": kind(letter), "field": letter.field, "reason": letter.reason,
        "rule": letter.rule, "rule_version": letter.rule_version, "withheld": letter.withheld,
        "stage": letter.stage, "processor_version": letter.processor_version,
        "tenant": letter.tenant, "type": original::event_type(letter),
        "failed_at": time_text(letter.failed_at.as_ref()), "source": letter.source.as_ref().map(|_| source(letter)),
        "original_key": letter.original_key.as_deref().map(readable), "original_headers": headers,
        "original_value_hex": hex(&letter.original_value),
        "original_value_utf8": std::str::from_utf8(&letter.original_value).ok(),
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

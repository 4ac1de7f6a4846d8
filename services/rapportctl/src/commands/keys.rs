use std::io::Read as _;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use rand::{RngExt as _, distr::Alphanumeric};
use rapport_events::{EventTime, Tenant};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{context::Context, error::Usage};

/// Letters and digits of a key behind its prefix: 238 bits.
const KEY_CHARACTERS: usize = 40;
/// What keys begin with, so that scanners for leaked secrets can know them.
const PREFIX: &str = "rapport_";
/// The collector takes no longer ones.
const KEY_BYTES: u64 = 512;
const NAME_BYTES: usize = 64;

#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make an API key: shows it once, with the entry for the collector's key file
    New(New),
    /// The hash of a key that is given on standard input, as the key file wants it
    Hash,
}

#[derive(Debug, Args)]
pub struct New {
    /// What it is called in metrics and messages; keys of one name share their limits
    #[arg(long, default_value = "default", value_parser = name)]
    name: String,
    /// When it ends: a time from now such as 90d, or 2027-01-01T00:00:00Z [default: never]
    #[arg(long, value_name = "WHEN", value_parser = expiry)]
    expires: Option<Expiry>,
    /// Events a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Events a day
    #[arg(long, value_name = "N")]
    daily_events: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Expiry {
    In(std::time::Duration),
    At(EventTime),
}

fn expiry(text: &str) -> Result<Expiry, String> {
    match (humantime::parse_duration(text), EventTime::parse_rfc3339(text)) {
        (Ok(time), _) => Ok(Expiry::In(time)),
        (_, Some(time)) => Ok(Expiry::At(time)),
        _ => Err(format!("{text:?} is neither a time from now such as 90d nor 2027-01-01T00:00:00Z")),
    }
}

/// As the collector checks it.
fn name(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > NAME_BYTES || !text.bytes().all(plain) {
        return Err(format!("must be 1 to {NAME_BYTES} letters, digits, \"-\", \"_\" or \".\""));
    }
    Ok(text.to_owned())
}

impl Keys {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::New(new) => new.run(context),
            Self::Hash => hash(context),
        }
    }
}

impl New {
    fn run(self, context: &Context) -> anyhow::Result<()> {
        let Some(tenant) = &context.only_tenant else {
            return Err(Usage("say whose key it is: --tenant acme".to_owned()).into());
        };
        let secret: String = rand::rng().sample_iter(Alphanumeric).take(KEY_CHARACTERS).map(char::from).collect();
        let key = format!("{PREFIX}{secret}");
        let entry = self.entry(tenant, &key, EventTime::now());
        context.output.answer(
            || json!({ "key": key, "name": self.name, "tenant": tenant.as_str(), "sha256": sha256(&key), "entry": entry }),
            |page| {
                page.line(format!("key, shown this once: {key}\n"));
                page.line("for the collector's key file (--api-keys-file), below \"keys:\"; it is read within seconds:\n");
                page.line(entry.trim_end());
            },
        );
        Ok(())
    }

    /// An element of `keys` in the key file. It holds the hash, never the key.
    fn entry(&self, tenant: &Tenant, key: &str, now: EventTime) -> String {
        let mut entry =
            format!("  - name: {:?}\n    sha256: {:?}\n    tenant: {:?}\n", self.name, sha256(key), tenant.as_str());
        if let Some(expires) = self.expires {
            let at = match expires {
                Expiry::At(time) => time,
                Expiry::In(time) => {
                    EventTime::from_ms(now.as_ms().saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
                }
            };
            entry += &format!("    expires: \"{at}\"\n");
        }
        if let Some(rate) = self.rate {
            entry += &format!("    rate: {{ events_per_second: {rate} }}\n");
        }
        if let Some(daily) = self.daily_events {
            entry += &format!("    daily_events: {daily}\n");
        }
        entry
    }
}

fn hash(context: &Context) -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin().take(KEY_BYTES + 3).read_to_string(&mut text).context("reading the key from standard input")?;
    let key = text.trim_end_matches(['\r', '\n']);
    if key.is_empty() || key.len() as u64 > KEY_BYTES {
        let has = key.len();
        return Err(Usage(format!(
            "a key has 1 to {KEY_BYTES} bytes, standard input has {has}; try: printf %s \"$KEY\" | rapportctl keys hash"
        ))
        .into());
    }
    context.output.answer(|| json!({ "sha256": sha256(key) }), |page| page.line(sha256(key)));
    Ok(())
}

fn sha256(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_yaml_that_holds_the_hash_and_not_the_key() {
        let new =
            New { name: "web".into(), expires: Some(expiry("1d").unwrap()), rate: Some(50), daily_events: Some(1_000) };
        let entry = new.entry(&Tenant::parse("acme").unwrap(), "test", EventTime::from_ms(1_798_675_200_000));
        assert!(!entry.contains("test"));
        let file: serde_json::Value = serde_yaml_ng::from_str(&format!("keys:\n{entry}")).unwrap();
        assert_eq!(
            file,
            json!({ "keys": [{
                "name": "web", "tenant": "acme",
                "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "expires": "2027-01-01T00:00:00Z", "rate": { "events_per_second": 50 }, "daily_events": 1_000,
            }] })
        );
    }

    #[test]
    fn a_name_that_the_collector_refuses_is_refused_here() {
        assert_eq!(name("shop-web_1.0").as_deref(), Ok("shop-web_1.0"));
        for wrong in ["", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
        assert!(expiry("next year").unwrap_err().contains("90d"));
    }
}

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use comfy_table::Cell;
use prost::Message as _;
use rapport_events::{EventTime, check_id, event_key, limits, pseudonym::Pseudonymiser};
use rapport_proto::privacy;
use rdkafka::Message as _;
use serde_json::json;

use super::time_text;
use crate::{
    blocking::on_thread,
    context::Context,
    error::Usage,
    output,
    publish::publish,
    scan::{Isolation, Offsets, Scan},
};

/// A tenant's policy may name 32 purposes.
const PURPOSES: usize = 64;
const PURPOSE_BYTES: usize = 64;

#[derive(Debug, Subcommand)]
pub enum Consent {
    /// Take a customer's decision down; purposes that are not named stay as they were decided
    Set(Set),
    /// What a customer decided
    Show(Whose),
    /// Forget the decision: the policy's default holds again
    Forget(Whose),
}

#[derive(Debug, Args)]
pub struct Whose {
    /// The customer's id as clients send it (anon:ID for a visitor who is not known)
    #[arg(long, value_name = "ID")]
    customer: String,
    /// The key that the cleaner hashes ids with; needed where the id is an e-mail address or the like
    #[arg(long, env = "RAPPORT_HASH_KEY", hide_env_values = true)]
    hash_key: Option<String>,
}

#[derive(Debug, Args)]
pub struct Set {
    #[command(flatten)]
    whose: Whose,
    /// A purpose of the policy and the decision, as NAME=yes or NAME=no; can be repeated
    #[arg(long, required = true, value_name = "NAME=yes|no", value_parser = purpose)]
    purpose: Vec<(String, bool)>,
}

fn purpose(text: &str) -> Result<(String, bool), String> {
    let wrong = || format!("{text:?} is not NAME=yes or NAME=no, for example analytics=yes");
    let (name, decision) = text.split_once('=').ok_or_else(wrong)?;
    let agreed = match decision.trim().to_ascii_lowercase().as_str() {
        "yes" | "true" | "granted" => true,
        "no" | "false" | "denied" => false,
        _ => return Err(wrong()),
    };
    let name = name.trim();
    if name.is_empty() || name.len() > PURPOSE_BYTES {
        return Err(format!("a purpose's name has 1 to {PURPOSE_BYTES} bytes, this one {}", name.len()));
    }
    Ok((name.to_owned(), agreed))
}

impl Consent {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Set(set) => set.run(context).await,
            Self::Show(whose) => {
                let customer = whose.id(context)?;
                let decision = read(context, &customer).await?;
                show(context, &customer, decision.as_ref());
                Ok(())
            }
            Self::Forget(whose) => {
                let customer = whose.id(context)?;
                write(context, &customer, None).await?;
                show(context, &customer, None);
                Ok(())
            }
        }
    }
}

impl Whose {
    /// The id as clean events carry it, and so as the topic's key has it.
    fn id(&self, context: &Context) -> anyhow::Result<String> {
        let id = self.customer.trim();
        if id.is_empty() {
            return Err(Usage("--customer is empty".to_owned()).into());
        }
        check_id("--customer", id, limits::ID_BYTES).map_err(|error| Usage(error.to_string()))?;
        // Any key tells whether an id is one that is hashed.
        let personal = Pseudonymiser::new(&[0; 16]).is_some_and(|any| any.personal_id(&context.tenant, id).is_some());
        if !personal {
            return Ok(id.to_owned());
        }
        let Some(key) = self.hash_key.clone().or_else(|| context.of_address_file("RAPPORT_HASH_KEY")) else {
            return Err(Usage(
                "this customer's id names a person, so clean events carry it hashed; give the cleaner's key with \
                 RAPPORT_HASH_KEY"
                    .to_owned(),
            )
            .into());
        };
        let pseudonymiser = Pseudonymiser::from_config(&key).map_err(Usage)?;
        Ok(pseudonymiser.customer_id(&context.tenant, id))
    }
}

impl Set {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let customer = self.whose.id(context)?;
        context.ensure_topics().await?;
        let before = read(context, &customer).await?;
        let decision = decided(before, context.tenant.as_str(), &customer, self.purpose, EventTime::now())?;
        write(context, &customer, Some(&decision)).await?;
        show(context, &customer, Some(&decision));
        Ok(())
    }
}

/// The standing decision with the new one over it: the topic keeps only the newest record.
fn decided(
    before: Option<privacy::Consent>,
    tenant: &str,
    customer: &str,
    purposes: Vec<(String, bool)>,
    now: EventTime,
) -> anyhow::Result<privacy::Consent> {
    let mut all: HashMap<String, bool> = before.map(|before| before.purposes).unwrap_or_default().into_iter().collect();
    all.extend(purposes);
    if all.len() > PURPOSES {
        bail!("a customer may decide about {PURPOSES} purposes, this would be {}", all.len());
    }
    Ok(privacy::Consent {
        tenant: tenant.to_owned(),
        customer_id: customer.to_owned(),
        purposes: all.into_iter().collect(),
        decided_at: Some(now.to_proto()),
    })
}

async fn read(context: &Context, customer: &str) -> anyhow::Result<Option<privacy::Consent>> {
    let (kafka, key) = (context.kafka.clone(), event_key(&context.tenant, customer));
    on_thread("consent", move || {
        let topic = kafka.topics().privacy;
        let mut found = None;
        Scan::open(&kafka, Isolation::Committed)?.read(&topic, &Offsets::new(), &Offsets::new(), |record| {
            if record.key() == Some(key.as_bytes()) {
                found = match record.payload() {
                    None | Some([]) => None,
                    Some(value) => Some(
                        privacy::Consent::decode(value)
                            .with_context(|| format!("{topic} holds no decision under {key:?}"))?,
                    ),
                };
            }
            Ok(())
        })?;
        Ok(found)
    })
    .await
}

/// Publishes a decision, or the end of one.
async fn write(context: &Context, customer: &str, decision: Option<&privacy::Consent>) -> anyhow::Result<()> {
    let key = event_key(&context.tenant, customer);
    let value = decision.map(privacy::Consent::encode_to_vec);
    publish(context, &context.kafka.topics().privacy, &key, value.as_deref(), "the decision").await
}

fn show(context: &Context, customer: &str, decision: Option<&privacy::Consent>) {
    let mut purposes: Vec<(&String, &bool)> = decision.map(|d| d.purposes.iter().collect()).unwrap_or_default();
    purposes.sort();
    let decided_at = decision.and_then(|decision| time_text(decision.decided_at.as_ref()));
    context.output.answer(
        || {
            let purposes: serde_json::Map<_, _> =
                purposes.iter().map(|(name, agreed)| ((*name).clone(), json!(agreed))).collect();
            json!({
                "tenant": context.tenant.as_str(), "customer_id": customer, "decided": decision.is_some(),
                "purposes": purposes, "decided_at": decided_at,
            })
        },
        |page| {
            if purposes.is_empty() {
                page.line(format!("{customer} has decided nothing: the policy's default holds"));
                return;
            }
            let mut table = output::table(["purpose", "agreed"]);
            for (name, agreed) in &purposes {
                table.add_row(vec![Cell::new(name), Cell::new(if **agreed { "yes" } else { "no" })]);
            }
            page.table(&table);
            page.line(format!("{customer}, decided at {}", decided_at.clone().unwrap_or_default()));
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_decision_leaves_other_purposes_as_they_were() {
        let now = EventTime::from_ms(1_800_000_000_000);
        let first = decided(None, "acme", "c1", vec![("ads".into(), true), ("analytics".into(), true)], now).unwrap();
        let second = decided(Some(first), "acme", "c1", vec![("ads".into(), false)], now).unwrap();
        assert_eq!((second.purposes["ads"], second.purposes["analytics"]), (false, true));
        let many = (0..=PURPOSES).map(|n| (n.to_string(), true)).collect();
        assert!(decided(None, "acme", "c1", many, now).is_err());
    }

    #[test]
    fn a_decision_is_yes_or_no() {
        assert_eq!(purpose("analytics=yes"), Ok(("analytics".into(), true)));
        assert_eq!(purpose(" ads = No"), Ok(("ads".into(), false)));
        for wrong in ["analytics", "=yes", "a=maybe", ""] {
            assert!(purpose(wrong).is_err(), "{wrong}");
        }
    }
}

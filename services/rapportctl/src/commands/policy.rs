use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, Subcommand};
use comfy_table::Cell;
use rapport_policy::{
    Action, BotAction, ClientIp, Decision, Fields, Mode, OnAncient, OnFuture, Policies, Policy, PolicyError, Unplanned,
    UserAgent, Without,
};
use serde_json::{Value, json};

use crate::{context::Context, output};

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Check policy files: every mistake with its place, or what the policy does
    Check(Check),
    /// What holds for a tenant
    Show(Show),
}

#[derive(Debug, Args)]
pub struct Check {
    /// Files named <tenant>.yaml, or folders of them
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Show {
    /// The folder of policies that the cleaner reads
    #[arg(long, env = "RAPPORT_POLICIES", value_name = "FOLDER")]
    policies: PathBuf,
}

impl PolicyCommand {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Check(check) => check.run(context),
            Self::Show(show) => show.run(context),
        }
    }
}

impl Check {
    fn run(self, context: &Context) -> anyhow::Result<()> {
        let (mut right, mut wrong) = (Vec::new(), Vec::new());
        for path in &self.paths {
            check(path, &mut right, &mut wrong);
        }
        context.output.answer(
            || {
                let mistake = |e: &PolicyError| json!({ "file": e.file, "path": e.path, "reason": e.reason });
                json!({
                    "policies": right.iter().map(policy_json).collect::<Vec<_>>(),
                    "mistakes": wrong.iter().map(mistake).collect::<Vec<_>>(),
                })
            },
            |page| {
                for policy in &right {
                    show_policy(page, policy);
                }
                for mistake in &wrong {
                    page.line(format!("wrong: {mistake}"));
                }
                if right.is_empty() && wrong.is_empty() {
                    page.line("there is no policy: every tenant is treated by the built-in rules");
                }
            },
        );
        match wrong.len() {
            0 => Ok(()),
            1 => bail!("there is 1 mistake"),
            many => bail!("there are {many} mistakes"),
        }
    }
}

/// A file, or every file of a folder.
fn check(path: &Path, right: &mut Vec<Policy>, wrong: &mut Vec<PolicyError>) {
    if path.is_dir() {
        match Policies::load(path) {
            Ok(policies) => {
                let mut all: Vec<Policy> = policies.tenants().map(|(_, policy)| Policy::clone(policy)).collect();
                all.sort_by(|a, b| a.version.cmp(&b.version));
                right.extend(all);
            }
            Err(errors) => wrong.extend(errors.0),
        }
        return;
    }
    match Policies::check_file(path) {
        Ok(policy) => right.push(policy),
        Err(errors) => wrong.extend(errors),
    }
}

impl Show {
    fn run(self, context: &Context) -> anyhow::Result<()> {
        let policies = match Policies::load(&self.policies) {
            Ok(policies) => policies,
            Err(errors) => bail!("{errors}\ntry: rapportctl policy check {}", self.policies.display()),
        };
        let policy = policies.of(&context.tenant);
        context.output.answer(
            || policy_json(policy),
            |page| {
                if policy.version == rapport_policy::BUILTIN {
                    page.line(format!("{} has no policy of its own: the built-in rules hold", context.tenant));
                }
                show_policy(page, policy);
            },
        );
        Ok(())
    }
}

fn show_policy(page: &mut output::Page, policy: &Policy) {
    let mut table = output::table(["", policy.version.as_str()]);
    for (section, text) in summary(policy) {
        table.add_row(vec![Cell::new(section), Cell::new(text)]);
    }
    page.table(&table);
}

fn policy_json(policy: &Policy) -> Value {
    let sections: serde_json::Map<String, Value> =
        summary(policy).into_iter().map(|(section, text)| (section.to_owned(), json!(text))).collect();
    json!({ "version": policy.version, "does": sections })
}

/// What a policy does, a line for each section, in the order in which an event meets them.
fn summary(policy: &Policy) -> Vec<(&'static str, String)> {
    vec![
        ("collect", collect(policy)),
        ("validate", validate(policy)),
        ("normalise", normalise(policy)),
        ("time", time(policy)),
        ("consent", consent(policy)),
        ("privacy", privacy(policy)),
        ("bots", bots(policy)),
        ("enrich", enrich(policy)),
    ]
}

fn collect(policy: &Policy) -> String {
    let address = match policy.collect.client_ip {
        ClientIp::Keep => "addresses are kept whole",
        ClientIp::Truncate => "addresses are cut to their network",
        ClientIp::Drop => "addresses are dropped",
    };
    let agent = match policy.collect.user_agent {
        UserAgent::Keep => "user agents are kept",
        UserAgent::Drop => "user agents are dropped",
    };
    format!("{address}, {agent}")
}

fn validate(policy: &Policy) -> String {
    let plans: Vec<String> = policy
        .validate
        .events
        .iter()
        .map(|(name, plan)| {
            let mode = match plan.mode {
                Mode::Strict => "",
                Mode::Observe => " (only observed)",
            };
            format!("{name} v{}{mode}", plan.version)
        })
        .collect();
    let others = match policy.validate.unplanned {
        Unplanned::Allow => "pass",
        Unplanned::Observe => "pass and are observed",
        Unplanned::Refuse => "are refused",
    };
    if plans.is_empty() {
        return format!("no plans; all types {others}");
    }
    format!("plans for {}; other types {others}", listed(&plans, 8))
}

fn normalise(policy: &Policy) -> String {
    let rules = &policy.normalise;
    let mut parts = vec![if rules.texts { "texts to NFC" } else { "texts as they are" }.to_owned()];
    for (count, what) in [
        (rules.numbers.len(), "fields that are numbers"),
        (rules.currencies.len(), "own names of currencies"),
        (rules.minor_units.len(), "amounts in cents"),
        (rules.units.len(), "units"),
    ] {
        if count > 0 {
            parts.push(format!("{what}: {count}"));
        }
    }
    parts.join(", ")
}

fn time(policy: &Policy) -> String {
    let time = &policy.time;
    let future = match time.on_future {
        OnFuture::ReceiveTime => "happened when it was received",
        OnFuture::Refuse => "is refused",
    };
    let ancient = match (time.oldest, time.on_ancient) {
        (None, _) => "any past is believed".to_owned(),
        (Some(oldest), OnAncient::Mark) => format!("older than {} is marked", duration(oldest)),
        (Some(oldest), OnAncient::Refuse) => format!("older than {} is refused", duration(oldest)),
    };
    format!("more than {} ahead {future}; {ancient}", duration(time.future))
}

fn consent(policy: &Policy) -> String {
    let consent = &policy.consent;
    if !consent.required() {
        return "nobody is asked".to_owned();
    }
    let purposes: Vec<String> = consent
        .purposes
        .iter()
        .map(|(name, purpose)| match &purpose.fields {
            Fields::All => format!("{name} (all fields)"),
            Fields::Named(fields) => format!("{name} ({} fields)", fields.len()),
        })
        .collect();
    let undecided = match consent.default {
        Decision::Deny => "refused",
        Decision::Allow => "agreed to",
    };
    let without = match consent.without {
        Without::Withhold => "a dead letter without content",
        Without::Strip => "a clean event of nobody",
    };
    format!("needed for {}; undecided counts as {undecided}; without any: {without}", listed(&purposes, 8))
}

fn privacy(policy: &Policy) -> String {
    let privacy = &policy.privacy;
    let name = |action| match action {
        Action::Hash => "hashed",
        Action::Tokenise => "tokenised",
        Action::Mask => "masked",
        Action::Truncate => "truncated",
        Action::Drop => "dropped",
        Action::Keep => "KEPT",
    };
    let detect = &privacy.detect;
    let found: Vec<String> = [
        ("e-mail", detect.email),
        ("phone", detect.phone),
        ("Chinese mobile", detect.chinese_mobile),
        ("Chinese resident id", detect.chinese_resident_id),
        ("card", detect.card),
        ("IBAN", detect.iban),
        ("IP", detect.ip),
    ]
    .iter()
    .map(|(what, action)| format!("{what} {}", name(*action)))
    .collect();
    let mut text = found.join(", ");
    text += if privacy.free_text { "; also inside longer texts" } else { "; whole values only" };
    text += if privacy.personal_names { "; fields with personal names" } else { "; no built-in field names" };
    for (count, what) in [(privacy.fields.len(), "fields"), (privacy.names.len(), "names")] {
        if count > 0 {
            text += &format!("; {what} by rule: {count}");
        }
    }
    text
}

fn bots(policy: &Policy) -> String {
    let bots = &policy.bots;
    let does = |action| match action {
        BotAction::Mark => "marked",
        BotAction::Refuse => "refused",
    };
    let mut by = Vec::new();
    if bots.user_agents || !bots.patterns.is_empty() {
        by.push("user agent".to_owned());
    }
    if !bots.networks.is_empty() {
        by.push(format!("{} networks", bots.networks.len()));
    }
    if bots.client_flag {
        by.push("the client's flag".to_owned());
    }
    let mut text = if by.is_empty() {
        "not looked for".to_owned()
    } else {
        format!("{}, told by {}", does(bots.action), by.join(", "))
    };
    if let Some(rate) = &bots.rate {
        text += &format!("; more than {} events a minute: {}", rate.per_minute, does(rate.action));
    }
    text
}

fn enrich(policy: &Policy) -> String {
    let enrich = &policy.enrich;
    let mut adds: Vec<String> =
        [(enrich.client, "client"), (enrich.referrer, "referrer"), (enrich.campaign, "campaign")]
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, what)| (*what).to_owned())
            .collect();
    match enrich.sessions.inactivity {
        Some(pause) => adds.push(format!("visits that end after {}", duration(pause))),
        None if enrich.sessions.client_ids => adds.push("the client's own session ids".to_owned()),
        None => {}
    }
    let catalog = &enrich.catalog;
    if catalog.category || !catalog.value.is_empty() {
        adds.push("what the catalog says of the item".to_owned());
    }
    if let Some(segment) = &enrich.segment {
        adds.push(format!("the customer's segment of {} by {}", segment.values.join(", "), segment.from));
    }
    if adds.is_empty() { "nothing".to_owned() } else { adds.join(", ") }
}

/// In the largest unit that says it exactly, as policies are written: `400d`, `30m`.
fn duration(time: std::time::Duration) -> String {
    let seconds = time.as_secs();
    for (unit, name) in [(86_400, "d"), (3_600, "h"), (60, "m")] {
        if time.subsec_nanos() == 0 && seconds > unit && seconds.is_multiple_of(unit) {
            return format!("{}{name}", seconds / unit);
        }
    }
    humantime::format_duration(time).to_string()
}

/// The first of a list, and how many more there are.
fn listed(texts: &[String], most: usize) -> String {
    let shown = texts.iter().take(most).cloned().collect::<Vec<_>>().join(", ");
    if texts.len() > most { format!("{shown} and {} more", texts.len() - most) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_tells_every_mistake_of_every_file() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("acme.yaml", "version: 1\ntime: {future: soon}\nbots: {action: sell}\n");
        write("bolt.yaml", "version: 2\n");
        let (mut right, mut wrong) = (Vec::new(), Vec::new());
        check(folder.path(), &mut right, &mut wrong);
        let places: Vec<&str> = wrong.iter().map(|mistake| mistake.path.as_str()).collect();
        assert!(places.iter().any(|place| place.starts_with("time")), "{places:?}");
        assert!(places.iter().any(|place| place.starts_with("bots")), "{places:?}");

        let (mut right, mut wrong) = (Vec::new(), Vec::new());
        check(&folder.path().join("bolt.yaml"), &mut right, &mut wrong);
        assert_eq!((right.len(), wrong.len(), right[0].version.as_str()), (1, 0, "bolt@2"));
        check(&folder.path().join("none.yaml"), &mut right, &mut wrong);
        assert_eq!(wrong.len(), 1);
    }

    #[test]
    fn durations_are_told_as_policies_write_them() {
        let told = [400 * 86_400, 23 * 3_600, 1_800, 90].map(|s| duration(std::time::Duration::from_secs(s)));
        assert_eq!(told, ["400d", "23h", "30m", "1m 30s"]);
    }

    #[test]
    fn a_summary_says_what_the_policy_does() {
        let text = "version: 7\nvalidate: {unplanned: refuse, events: {view: {version: 2, mode: observe, schema: {}}}}\n\
                    consent: {mode: required, purposes: {analytics: {fields: all}}}\nbots: {rate: {per_minute: 60}}\n";
        let policy = Policy::from_yaml("acme", text).unwrap();
        let summary: std::collections::HashMap<_, _> = summary(&policy).into_iter().collect();
        assert_eq!(summary["validate"], "plans for view v2 (only observed); other types are refused");
        assert!(summary["consent"].starts_with("needed for analytics (all fields); undecided counts as refused"));
        assert!(summary["bots"].ends_with("more than 60 events a minute: marked"), "{}", summary["bots"]);
        assert!(summary["privacy"].contains("card masked") && summary["privacy"].contains("IP truncated"));
    }
}

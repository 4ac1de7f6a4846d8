//! The model card: what a person should know before trusting a model.

use std::fmt::Write as _;

use crate::{
    compress::{Figures, Trial},
    privacy::PrivacySpent,
    run::Evaluation,
    write::Report,
};

/// How models are judged, in one paragraph.
pub const PROTOCOL: &str = "Global time-ordered hold-out: events before the 80 % point in event time train, those up to \
    the 90 % point validate, the rest test. Each held-out event with an item that is new to its customer is predicted \
    from everything the customer did before it, against all items that the customer does not have yet (full ranking).";

/// The same for models that are asked for events of one type alone.
pub fn protocol(asked: Option<&str>) -> String {
    match asked {
        Some(asked) => format!("{PROTOCOL} Only events of type {asked:?} are asked for."),
        None => PROTOCOL.into(),
    }
}

/// What stands on a card.
pub struct Facts<'a> {
    pub version: &'a str,
    pub about: &'a str,
    pub created_at: &'a str,
    pub report: &'a Report<'a>,
    pub evaluations: &'a [Evaluation],
    pub recipe: &'a serde_json::Value,
    pub trained_on: &'a str,
    pub privacy_spent: Option<PrivacySpent>,
    /// Between ONNX Runtime and libtorch.
    pub difference: f32,
    /// What became of making it smaller, where that was asked for.
    pub compression: Option<&'a Trial>,
}

/// The card as Markdown.
pub fn card(facts: &Facts<'_>) -> String {
    let report = facts.report;
    let (data, plan) = (report.data, report.plan);
    let mut rows = String::new();
    for Evaluation { model, split, figures: f, fit_seconds } in facts.evaluations {
        // Writing to a String cannot fail.
        writeln!(
            rows,
            "| {model} | {split} | {:.4} | {:.4} | {:.4} | {:.3} | {} | {fit_seconds:.1} |",
            f.ndcg, f.hit_rate, f.mrr, f.coverage, f.cases
        )
        .ok();
    }
    let protocol = protocol(plan.asked.as_deref());
    let gate = if report.gate.passed { "passed" } else { "not passed" };
    format!(
        "# {name} {version}\n\n\
         {what}\n\n\
         - Tenant: {tenant}. Made: {created}.{because}\n\
         - Serves: ranking the items that a customer may want next, from the customer's newest events.\n\
         - Gate: {gate}. {reason}.\n\
         - Learned from {used} events of {customers} customers with {items} items; the weights in this artifact were \
         trained on {trained_on}.\n\
         - ONNX Runtime and libtorch agree to {difference:.1e}.\n\
         {compression}\n\
         ## Figures\n\n\
         {protocol}\n\n\
         | model | split | NDCG@10 | HR@10 | MRR | coverage@10 | cases | fit s |\n\
         |---|---|---|---|---|---|---|---|\n\
         {rows}\n\
         {strangers} held-out events had no history before them and {repeats} repeated an item: neither is a case.\n\n\
         ## Recipe\n\n\
         ```json\n{recipe:#}\n```\n\n\
         {privacy}## Limits\n\n\
         - Knows the items of its log only; a new item needs a new training. A customer without history gets what is \
         popular elsewhere in the pipeline.\n\
         - Learns what people did, with whatever was shown to them: it repeats past exposure, popularity included.\n\
         - Uses no attributes of customers. Not for decisions about a person's rights or prices.\n",
        what = facts.about,
        name = plan.model,
        version = facts.version,
        tenant = plan.tenant,
        created = facts.created_at,
        because = if plan.because.is_empty() { String::new() } else { format!(" Why: {}.", plan.because) },
        reason = report.gate.reason,
        used = data.counts.used,
        customers = data.customers.len(),
        items = data.items.len(),
        trained_on = facts.trained_on,
        difference = facts.difference,
        privacy = facts.privacy_spent.map(privacy).unwrap_or_default(),
        compression = facts.compression.map(compression).unwrap_or_default(),
        strangers = report.split.without_history,
        repeats = report.split.repeats,
        recipe = facts.recipe,
    )
}

/// What private training promises, and what it does not.
fn privacy(spent: PrivacySpent) -> String {
    let PrivacySpent { epsilon, delta, order, steps } = spent;
    format!(
        "## Privacy\n\n\
         The weights were trained with differential privacy for each customer: epsilon {epsilon:.3} at delta {delta:e} \
         (R\u{e9}nyi order {order}, {steps} steps; one customer more or less, of whose history only the newest window \
         is read). Every pass of the choice is counted, and training again on all events where that was done.\n\n\
         NOT covered, because they were made from the log without noise: the choice of the pass, and of the model, on \
         validation; the list of items and their order by popularity; the neighbours of items; the figures, losses and \
         the number of customers; a search for hyper-parameters before; and other trainings on the same log.\n\n"
    )
}

/// A line of the card.
fn compression(trial: &Trial) -> String {
    let sizes = |of: &Figures| {
        let times = of.measured.latencies.map(|l| format!("{:.2} ms for {}", l.p50.as_secs_f64() * 1e3, l.batch));
        format!("{} bytes ({} gzipped), {}", of.measured.bytes, of.measured.gzip_bytes, times.join(", "))
    };
    let verdict = match trial.accepted {
        true => "this artifact holds the compressed graph",
        false => "refused, this artifact holds the graph as it was exported",
    };
    let after = trial.after.as_ref().map(|after| format!(" Now: {}.", sizes(after))).unwrap_or_default();
    format!(
        "- Compression ({}): {verdict}. {} (both on the test part, which these weights may have learned from: only the \
         difference counts; the figures below are of the graph before).{after} Before: {}. Latencies are medians on one \
         thread.\n",
        trial.way,
        trial.reason,
        sizes(&trial.before)
    )
}

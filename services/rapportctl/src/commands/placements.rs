use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, Subcommand};
use comfy_table::Cell;
use rapport_placements::{
    Boost, Match, Mistake, Mistakes, Model, NewItems, Placement, SOURCES, Stages, TenantPlacements,
};
use serde_json::{Value, json};

use crate::{
    context::Context,
    output::{self, Page},
};

#[derive(Debug, Subcommand)]
pub enum PlacementsCommand {
    /// Check files: every mistake with its place, or what the placements and experiments do
    Check(Check),
    /// Which arm of each experiment a customer has
    Arm(Arm),
}

#[derive(Debug, Args)]
pub struct Check {
    /// Files named <tenant>.yaml
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Arm {
    /// A file of placements
    file: PathBuf,
    /// The customer's id, as it is stored (a pseudonym where the cleaner hashes it)
    customer: String,
}

impl PlacementsCommand {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Check(check) => check.run(context),
            Self::Arm(arm) => arm.run(context),
        }
    }
}

impl Check {
    fn run(self, context: &Context) -> anyhow::Result<()> {
        let (mut right, mut wrong): (Vec<(String, TenantPlacements)>, Vec<Mistake>) = (Vec::new(), Vec::new());
        for file in &self.files {
            match read(file) {
                Ok(placements) => right.push((file.display().to_string(), placements)),
                Err(Mistakes(mistakes)) => wrong.extend(mistakes),
            }
        }
        context.output.answer(
            || {
                let mistake = |m: &Mistake| json!({ "file": m.file, "path": m.path, "reason": m.reason });
                json!({
                    "files": right.iter().map(|(file, of)| file_json(file, of)).collect::<Vec<_>>(),
                    "mistakes": wrong.iter().map(mistake).collect::<Vec<_>>(),
                })
            },
            |page| {
                right.iter().for_each(|(file, of)| show(page, file, of));
                for mistake in &wrong {
                    page.line(format!("wrong: {mistake}"));
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

impl Arm {
    fn run(self, context: &Context) -> anyhow::Result<()> {
        let placements = read(&self.file)?;
        let arms: Vec<(&str, Option<String>)> = placements
            .experiments()
            .map(|(name, experiment)| (name, experiment.arm_of(&self.customer).map(|arm| arm.name.clone())))
            .collect();
        context.output.answer(
            || json!(arms.iter().map(|(name, arm)| json!({ "experiment": name, "arm": arm })).collect::<Vec<_>>()),
            |page| {
                for (name, arm) in &arms {
                    page.line(format!("{name}: {}", arm.as_deref().unwrap_or("takes no part")));
                }
                if arms.is_empty() {
                    page.line("there is no experiment in this file");
                }
            },
        );
        Ok(())
    }
}

fn read(file: &Path) -> Result<TenantPlacements, Mistakes> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        Mistakes(vec![Mistake { file: name.clone(), path: String::new(), reason: error.to_string() }])
    })?;
    TenantPlacements::from_yaml(&name, &text)
}

fn show(page: &mut Page, file: &str, of: &TenantPlacements) {
    let mut table = output::table(["", file]);
    for placement in of.placements() {
        table.add_row(vec![Cell::new(format!("placement {}", placement.name)), Cell::new(rules(placement).join("\n"))]);
    }
    for (name, experiment) in of.experiments() {
        let arm = |arm: &rapport_placements::Arm| {
            format!("{}: {} of them, as {}", arm.name, percent(arm.share), arm.placement)
        };
        let mut lines = vec![format!("on {}, {} of the customers", experiment.placement, percent(experiment.traffic))];
        lines.extend(experiment.arms.iter().map(arm));
        table.add_row(vec![Cell::new(format!("experiment {name}")), Cell::new(lines.join("\n"))]);
    }
    page.table(&table);
}

/// What a placement does, one rule a line.
fn rules(placement: &Placement) -> Vec<String> {
    let mut lines = stages(&placement.stages);
    let by = if placement.model == Model::Trial { " by the version on trial" } else { "" };
    lines.push(format!("arranges the {} best{by}", placement.candidates));
    let listed = |what: &str, categories: &[String]| {
        (!categories.is_empty()).then(|| format!("{what} {}", categories.join(", ")))
    };
    lines.extend(listed("only", &placement.only_categories));
    lines.extend(listed("never", &placement.never_categories));
    lines.extend(placement.boosts.iter().map(|Boost { matches, by }| {
        let what = match matches {
            Match::Category(category) => format!("category {category}"),
            Match::Source(source) => format!("source {source}"),
            Match::Items(items) => format!("{} items", items.len()),
            Match::Fresh(half_life) => {
                format!("new items (half as much after each {})", humantime::format_duration(*half_life))
            }
        };
        format!("{} {what} by {:.2} deviations", if *by < 0.0 { "lowers" } else { "lifts" }, by.abs())
    }));
    lines.extend(placement.diversity.same_category.map(|most| format!("at most {most} of one category")));
    lines.extend(placement.diversity.mmr.map(|weight| format!("variety by MMR, the score weighs {weight}")));
    lines.extend(placement.new_items.as_ref().map(|NewItems { every, within }| {
        let young = within
            .map(|within| format!(", published within {}", humantime::format_duration(within)))
            .unwrap_or_default();
        format!("at least one of {every} places for what the model does not know{young}")
    }));
    lines.extend(
        placement.explore.as_ref().map(|explore| {
            format!("the last {} places are drawn, at temperature {}", explore.slots, explore.temperature)
        }),
    );
    lines
}

/// What is off, and who has less time than the scorer allows.
fn stages(stages: &Stages) -> Vec<String> {
    let mut lines = Vec::new();
    if !stages.without_sources.is_empty() {
        let on: Vec<&str> = SOURCES.iter().copied().filter(|source| stages.asks(source)).collect();
        lines.push(format!("candidates from {}; off: {}", on.join(", "), stages.without_sources.join(", ")));
    }
    if !stages.asks("trending") {
        lines.push("whom nothing is known of gets an empty list, and so does everybody while Redis is away".to_owned());
    }
    lines.extend(stages.without_filters.iter().map(|filter| match *filter {
        "seen" => "shows what the customer has too (the filter seen is off)".to_owned(),
        "unavailable" => "shows what is sold out too (the filter unavailable is off)".to_owned(),
        other => format!("the filter {other} is off"),
    }));
    let waits = |(source, budget): &(&str, std::time::Duration)| {
        format!("waits for the source {source} {} at most", humantime::format_duration(*budget))
    };
    lines.extend(stages.budgets.iter().map(waits));
    lines
}

fn percent(share: f64) -> String {
    format!("{:.4}", share * 100.0).trim_end_matches('0').trim_end_matches('.').to_owned() + " %"
}

fn file_json(file: &str, of: &TenantPlacements) -> Value {
    let experiment = |(name, experiment): (&str, &rapport_placements::Experiment)| {
        let arms = experiment.arms.iter();
        let arms = arms.map(|arm| json!({ "name": arm.name, "share": arm.share, "placement": arm.placement }));
        json!({
            "name": name, "placement": experiment.placement, "traffic": experiment.traffic,
            "arms": arms.collect::<Vec<_>>(),
        })
    };
    json!({
        "file": file,
        "placements": of.placements().map(|p| json!({ "name": p.name, "does": rules(p) })).collect::<Vec<_>>(),
        "experiments": of.experiments().map(experiment).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_off_is_told_with_what_that_means() {
        let text = "placements: {p: {sources: {only: [model, similar]}, filters: {without: [seen, unavailable]}, \
                    budgets: {model: 8ms}}, q: {sources: {without: [similar]}}}";
        let read = TenantPlacements::from_yaml("t.yaml", text).unwrap();
        let told: Vec<Vec<String>> = read.placements().map(|placement| stages(&placement.stages)).collect();
        let others = |these: &[&str]| {
            SOURCES.iter().copied().filter(|source| !these.contains(source)).collect::<Vec<_>>().join(", ")
        };
        let off = format!("candidates from model, similar; off: {}", others(&["model", "similar"]));
        let expected = [
            off.as_str(),
            "whom nothing is known of gets an empty list, and so does everybody while Redis is away",
            "shows what the customer has too (the filter seen is off)",
            "shows what is sold out too (the filter unavailable is off)",
            "waits for the source model 8ms at most",
        ];
        assert_eq!(told[0], expected);
        assert_eq!(told[1], [format!("candidates from {}; off: similar", others(&["similar"]))]);
    }

    #[test]
    fn a_placement_is_told_in_plain_words() {
        let text = "placements: {p: {candidates: 9, never_categories: [a, b], boosts: [{source: trending, by: -0.5}], \
                    diversity: {same_category: 2}, new_items: {every: 5, within: 14d}, explore: {slots: 1}}}";
        let read = TenantPlacements::from_yaml("t.yaml", text).unwrap();
        let expected = [
            "arranges the 9 best",
            "never a, b",
            "lowers source trending by 0.50 deviations",
            "at most 2 of one category",
            "at least one of 5 places for what the model does not know, published within 14days",
            "the last 1 places are drawn, at temperature 1",
        ];
        assert_eq!(rules(read.placements().next().unwrap()), expected);
        assert_eq!([percent(0.5), percent(1.0), percent(0.333)], ["50 %", "100 %", "33.3 %"]);
    }
}

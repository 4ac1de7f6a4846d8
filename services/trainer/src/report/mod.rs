//! What a run found, as tables and plots for a page that needs no network.

mod findings;
mod lists;

use rapport_evaluation::{
    Bucket, Metric, Report, by_segment, holm,
    report::{Axis, Block, Mark, Plot, Point, Section, Series, Table, limits, number},
};

use crate::{
    Error,
    compare::Comparison,
    dataset::{Case, Dataset, Split},
    evaluate::{CUTOFFS, Judged, TOP, bootstrap},
    lists::Catalogue,
};

pub use findings::Findings;

/// Where customers are told apart by the length of their history.
const HISTORY_EDGES: [usize; 5] = [0, 5, 20, 50, 100];
/// A group with fewer customers is marked.
const FEW: usize = 30;

/// What was found, for three readers.
pub struct Pages<'a> {
    /// For a terminal: what decides.
    pub terminal: Report,
    /// Everything, with plots.
    pub full: Report,
    /// For programs.
    pub findings: Vec<Findings<'a>>,
}

/// The pages of a comparison. `facts` are shown under the title.
///
/// # Errors
/// Fewer than two customers in the test part.
pub fn pages<'a>(
    title: String,
    protocol: String,
    mut facts: Vec<(String, String)>,
    comparison: &'a Comparison,
    data: &Dataset,
    split: &Split,
) -> Result<Pages<'a>, Error> {
    facts.extend([
        ("validation cases".into(), split.validation.len().to_string()),
        ("test cases".into(), split.test.len().to_string()),
    ]);
    let all = comparison.on_test();
    let findings = findings::findings(comparison, &Catalogue::of(&split.before_test(data), data.items.len()))?;
    let section = |title: &str, blocks: Vec<Block>| Section { title: title.into(), blocks };
    let text = Block::Text(protocol);
    let test = Block::Table(figures(&all)?);
    let shown = (lists::explained(&findings), lists::of_ten(&findings), lists::by_segment(&findings));
    let better = section("Is the best one better?", vec![Block::Table(differences(&all)?)]);
    const TEST: &str = "Test figures";
    const SHOWN: &str = "What customers would be shown";
    let terminal = vec![
        section(TEST, vec![text.clone(), test.clone()]),
        better.clone(),
        section(SHOWN, vec![shown.0.clone(), shown.1, shown.2.clone()]),
    ];
    let mut full = vec![
        section(TEST, vec![text, test, Block::Table(cutoffs(&all)?)]),
        better,
        section(SHOWN, vec![shown.0, lists::of_all_lengths(&findings), shown.2]),
        section("By length of history", by_history(&all, &split.test)?),
    ];
    if !comparison.passes.is_empty() {
        full.push(section("Learning curves", curves(comparison)));
    }
    let page = |sections| Report { title: title.clone(), facts: facts.clone(), sections };
    Ok(Pages { terminal: page(terminal), full: page(full), findings })
}

/// What was found in the data, as facts for a page.
pub fn counted(data: &Dataset) -> Vec<(String, String)> {
    let customers = data.customers.len().to_string();
    vec![
        ("events".into(), data.counts.used.to_string()),
        ("customers".into(), customers),
        ("items".into(), data.items.len().to_string()),
    ]
}

fn figures(all: &[(&str, &Judged)]) -> Result<Table, Error> {
    let columns = ["model", "NDCG@10", "95 %", "HR@10", "95 %", "MRR"];
    let mut table = Table::new("Means over cases; intervals resample customers", &columns);
    for (name, judged) in all {
        let (ndcg, hits) = (judged.interval(Metric::Ndcg, TOP)?, judged.interval(Metric::HitRate, TOP)?);
        table.row([
            (*name).to_owned(),
            number(ndcg.estimate),
            limits(&ndcg),
            number(hits.estimate),
            limits(&hits),
            number(judged.figures.mrr),
        ]);
    }
    Ok(table)
}

fn cutoffs(all: &[(&str, &Judged)]) -> Result<Table, Error> {
    let metrics = findings::NEXT_ITEM;
    let names: Vec<String> =
        metrics.iter().flat_map(|metric| CUTOFFS.map(|k| format!("{}@{k}", metric.name()))).collect();
    let columns: Vec<&str> = std::iter::once("model").chain(names.iter().map(String::as_str)).collect();
    let mut table = Table::new("At several lengths of the list", &columns);
    for (name, judged) in all {
        let mut cells = vec![(*name).to_owned()];
        for metric in metrics {
            for k in CUTOFFS {
                cells.push(number(judged.mean(metric, k)?));
            }
        }
        table.row(cells);
    }
    Ok(table)
}

/// The best against every other: paired by case, customers resampled, p-values after Holm.
fn differences(all: &[(&str, &Judged)]) -> Result<Table, Error> {
    let Some(((best, judged), others)) = all.split_first() else { return Ok(Table::default()) };
    let found = others.iter().map(|(_, other)| judged.better_than(other)).collect::<Result<Vec<_>, _>>()?;
    let adjusted = holm(&found.iter().map(|difference| difference.p_value).collect::<Vec<_>>())?;
    let columns = ["against", "NDCG@10 more", "95 %", "p", "p (Holm)"];
    let mut table = Table::new(format!("{best} minus each other model, on the same cases"), &columns);
    for (((name, _), difference), adjusted) in others.iter().zip(&found).zip(adjusted) {
        let interval = &difference.interval;
        table.row([
            (*name).to_owned(),
            number(interval.estimate),
            limits(interval),
            number(difference.p_value),
            number(adjusted),
        ]);
    }
    Ok(table)
}

fn by_history(all: &[(&str, &Judged)], cases: &[Case]) -> Result<Vec<Block>, Error> {
    let buckets: Vec<Bucket> = cases.iter().map(|case| Bucket::of(case.prefix, &HISTORY_EDGES)).collect();
    let mut labels: Vec<String> = Vec::new();
    let mut series = Vec::new();
    let mut table = Table::new(
        format!("NDCG@10 by how many items the customer had before; groups below {FEW} customers are marked *"),
        &["model", "history", "cases", "customers", "NDCG@10", "95 %"],
    )
    .with_text(&["history"]);
    for (name, judged) in all {
        let values = judged.ndcg_of_cases()?;
        let mean = |rows: &[usize]| Ok(rows.iter().map(|&row| values[row]).sum::<f64>() / rows.len() as f64);
        let mut points = Vec::new();
        for segment in by_segment(&buckets, judged.clusters(), FEW, bootstrap(), mean)? {
            let at = labels.iter().position(|label| *label == segment.label).unwrap_or_else(|| {
                labels.push(segment.label.clone());
                labels.len() - 1
            });
            let (estimate, interval) = match &segment.interval {
                Ok(interval) => (number(interval.estimate), limits(interval)),
                Err(reason) => ("-".into(), reason.to_string()),
            };
            if let Ok(interval) = &segment.interval {
                let interval_y = Some((interval.lower, interval.upper));
                points.push(Point { x: at as f64, y: interval.estimate, interval: interval_y });
            }
            let mark = if segment.small { "*" } else { "" };
            let (rows, customers) = (segment.rows.to_string(), segment.customers.to_string());
            table.row([(*name).to_owned(), format!("{}{mark}", segment.label), rows, customers, estimate, interval]);
        }
        series.push(Series { name: (*name).to_owned(), points, mark: Mark::Line });
    }
    let ticks = labels.into_iter().enumerate().map(|(at, label)| (at as f64, label)).collect();
    let plot = Plot {
        title: "NDCG@10 by length of history".into(),
        x: Axis { label: "items before".into(), range: None, ticks },
        y: Axis { label: "NDCG@10".into(), ..Axis::default() },
        series,
        diagonal: false,
    };
    Ok(vec![Block::Plot(plot), Block::Table(table)])
}

fn curves(comparison: &Comparison) -> Vec<Block> {
    let plot = |title: &str, label: &str, of: fn(&crate::compare::Pass) -> f64| {
        let trainings = comparison.passes.iter().map(|pass| pass.training).max().unwrap_or(0);
        let series = (0..=trainings).map(|training| {
            let own = comparison.passes.iter().filter(|pass| pass.training == training);
            let points = own.map(|pass| Point { x: f64::from(pass.epoch), y: of(pass), interval: None }).collect();
            Series { name: format!("training {}", training + 1), points, mark: Mark::Line }
        });
        Block::Plot(Plot {
            title: title.into(),
            x: Axis { label: "pass over the data".into(), ..Axis::default() },
            y: Axis { label: label.into(), ..Axis::default() },
            series: series.collect(),
            diagonal: false,
        })
    };
    vec![
        plot("Loss on the training part", "loss", |pass| pass.loss),
        plot("NDCG@10 on a sample of the validation cases", "NDCG@10", |pass| pass.validation_ndcg),
    ]
}

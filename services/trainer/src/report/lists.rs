//! Tables of what customers would be shown.

use rapport_evaluation::{
    Interval,
    report::{Block, Table, limits, number},
};

use super::findings::Findings;
use crate::{evaluate::TOP, lists::ListFigures};

/// What the tables are about.
pub(super) fn explained(all: &[Findings<'_>]) -> Block {
    let Some(first) = all.first() else { return Block::Text(String::new()) };
    let relevant = first.mean_relevant;
    let mut text = format!(
        "One list for each customer, made before the first of their test items; all of these are relevant \
         ({} items on average). Diversity is one minus the mean cosine of a list's items by who had them; \
         popular is the share of places that went to the most popular tenth.",
        number(relevant)
    );
    if relevant <= 1.0 {
        text.push_str(" With one item each, recall is the hit rate and MAP the reciprocal rank within the list.");
    }
    Block::Text(text)
}

const COLUMNS: [&str; 9] = ["Recall", "95 %", "Precision", "MAP", "MRR", "NDCG", "coverage", "popular", "diversity"];

fn cells(figures: &ListFigures) -> [String; 9] {
    let of = |interval: &Interval| number(interval.estimate);
    [
        of(&figures.recall),
        limits(&figures.recall),
        of(&figures.precision),
        of(&figures.map),
        of(&figures.mrr),
        of(&figures.ndcg),
        number(figures.coverage),
        number(figures.popular_share),
        number(figures.diversity),
    ]
}

/// A row for each model, lists of ten.
pub(super) fn of_ten(all: &[Findings<'_>]) -> Block {
    let columns: Vec<&str> = std::iter::once("model").chain(COLUMNS).collect();
    let mut table = Table::new(format!("Lists of {TOP}"), &columns);
    for model in all {
        for figures in model.lists.iter().filter(|figures| figures.length == TOP) {
            table.row(std::iter::once(model.model.to_owned()).chain(cells(figures)));
        }
    }
    Block::Table(table)
}

/// A row for each model and length, with what the table of tens leaves out.
pub(super) fn of_all_lengths(all: &[Findings<'_>]) -> Block {
    let more = ["Gini", "mean ln popularity"];
    let columns: Vec<&str> = ["model", "length"].into_iter().chain(COLUMNS).chain(more).collect();
    let mut table = Table::new("Lists of several lengths", &columns);
    for model in all {
        for figures in &model.lists {
            let first = [model.model.to_owned(), figures.length.to_string()];
            let last = [figures.gini, figures.mean_log_popularity].map(number);
            table.row(first.into_iter().chain(cells(figures)).chain(last));
        }
    }
    Block::Table(table)
}

/// A row for each group of customers and model.
pub(super) fn by_segment(all: &[Findings<'_>]) -> Block {
    let columns: Vec<&str> = ["customers", "number", "model"].into_iter().chain(COLUMNS).collect();
    let mut table = Table::new(
        format!("Lists of {TOP}, the quarter of shortest and the quarter of longest histories apart"),
        &columns,
    )
    .with_text(&["model"]);
    let segments = all.first().map_or(0, |first| first.segments.len());
    for segment in 0..segments {
        for model in all {
            let Some((name, figures)) = model.segments.get(segment) else { continue };
            let first = [name.clone(), figures.customers.to_string(), model.model.to_owned()];
            table.row(first.into_iter().chain(cells(figures)));
        }
    }
    Block::Table(table)
}

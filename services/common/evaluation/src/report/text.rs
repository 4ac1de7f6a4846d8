//! The report for a terminal.

use super::{Block, Column, Plot, Report, Table, number, svg};

/// Points shown of each series; the rest is what the page is for.
const POINTS: usize = 12;

pub(super) fn page(report: &Report) -> String {
    let mut out = heading(&report.title, '=');
    let facts = report.facts.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect();
    let plain = |name: &str| Column { name: name.to_owned(), numeric: false };
    if !report.facts.is_empty() {
        let columns = vec![plain(""), plain("")];
        out.push_str(&aligned(&Table { caption: String::new(), columns, rows: facts }));
    }
    for section in &report.sections {
        out.push('\n');
        out.push_str(&heading(&section.title, '-'));
        for block in &section.blocks {
            match block {
                Block::Text(text) => {
                    out.push_str(&text.lines().map(clean).collect::<Vec<_>>().join("\n"));
                    out.push_str("\n\n");
                }
                Block::Table(table) => out.push_str(&aligned(table)),
                Block::Plot(plot) => out.push_str(&aligned(&as_table(plot))),
            }
        }
    }
    out
}

fn heading(title: &str, underline: char) -> String {
    let title = clean(title);
    let line: String = std::iter::repeat_n(underline, title.chars().count()).collect();
    format!("{title}\n{line}\n\n")
}

/// Control characters could move the cursor or change colours: a label is data, not a command.
fn clean(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

fn as_table(plot: &Plot) -> Table {
    let mut table = Table::new(plot.title.clone(), &["series", &plot.x.label, &plot.y.label, "interval"]);
    for series in &plot.series {
        let points: Vec<_> = svg::drawable(&series.points).collect();
        let last = points.len().saturating_sub(1);
        let shown = points.len().min(POINTS);
        // Evenly spaced, with the first and the last.
        let at = |i: usize| if shown > 1 { i * last / (shown - 1) } else { 0 };
        for point in (0..shown).filter_map(|i| points.get(at(i))) {
            let limits =
                point.interval.map_or_else(String::new, |(low, high)| format!("[{}, {}]", number(low), number(high)));
            table.row([series.name.clone(), svg::position(&plot.x, point.x), number(point.y), limits]);
        }
    }
    table
}

fn aligned(table: &Table) -> String {
    let mut out = String::new();
    if !table.caption.is_empty() {
        out.push_str(&clean(&table.caption));
        out.push('\n');
    }
    let names: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
    let titled = names.iter().any(|name| !name.is_empty());
    let lines: Vec<Vec<(bool, String)>> = titled
        .then_some(&names)
        .into_iter()
        .chain(&table.rows)
        .map(|row| table.cells(row).map(|(column, cell)| (column.numeric, clean(cell))).collect())
        .collect();
    let widths: Vec<usize> = (0..table.columns.len())
        .map(|i| lines.iter().filter_map(|line| line.get(i)).map(|(_, cell)| cell.chars().count()).max().unwrap_or(0))
        .collect();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|((numeric, cell), width)| match numeric {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out.push('\n');
    out
}

//! A report on a terminal: its tables and texts; plots are for the page.

use comfy_table::{Cell, CellAlignment};
use rapport_evaluation::report::{Block, Column, Report, Table};

use crate::output::{self, Page};

/// Everything but the plots.
pub fn report(page: &mut Page, report: &Report) {
    page.line(clean(&report.title));
    for (name, value) in &report.facts {
        page.line(clean(&format!("  {name}: {value}")));
    }
    for block in report.sections.iter().flat_map(|section| &section.blocks) {
        match block {
            Block::Text(text) => page.line(clean(text)),
            Block::Table(table) => {
                page.line(format!("\n{}", clean(&table.caption)));
                page.table(&cells(table));
            }
            Block::Plot(_) => {}
        }
    }
}

fn cells(table: &Table) -> comfy_table::Table {
    let mut shown = output::table([]);
    shown.set_header(table.columns.iter().map(|column| clean(&column.name)));
    for row in &table.rows {
        let cell = |(column, text): (&Column, &String)| {
            let alignment = if column.numeric { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(clean(text)).set_alignment(alignment)
        };
        shown.add_row(table.columns.iter().zip(row).map(cell));
    }
    shown
}

/// A name from a file could move the cursor or change colours: it is data, not a command.
fn clean(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_write_to_the_terminal() {
        assert_eq!(clean("a\u{1b}[31m"), "a\u{fffd}[31m");
        let mut table = Table::new("models", &["model", "AUC"]);
        table.row(["\u{1b}[2J", "0.8"]);
        assert!(!cells(&table).to_string().contains('\u{1b}'));
    }
}

//! The report as one page.

use std::fmt::Write as _;

use super::{Block, Mark, Plot, Report, Table, svg};

/// Light by default, dark where the reader's system asks for it. The six series colours are told apart
/// with the common kinds of colour blindness, and each has a step for a dark ground.
const STYLE: &str = include_str!("page.css");

/// Text made safe between tags and inside double-quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter if letter.is_control() && letter != '\n' => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

pub(super) fn page(report: &Report) -> String {
    let title = escape(&report.title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
    );
    if !report.facts.is_empty() {
        out.push_str("<dl>\n");
        for (name, value) in &report.facts {
            put(&mut out, format_args!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value)));
        }
        out.push_str("</dl>\n");
    }
    for section in &report.sections {
        put(&mut out, format_args!("<section>\n<h2>{}</h2>", escape(&section.title)));
        for block in &section.blocks {
            match block {
                Block::Text(text) => put(&mut out, format_args!("<p>{}</p>", escape(text))),
                Block::Table(rows) => table(&mut out, rows),
                Block::Plot(plot) => figure(&mut out, plot),
            }
        }
        out.push_str("</section>\n");
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn table(out: &mut String, table: &Table) {
    let class = |numeric: bool| if numeric { " class=\"number\"" } else { "" };
    // A wide table scrolls by itself; the page does not.
    put(out, format_args!("<div class=\"scroll\"><table>\n<caption>{}</caption>\n<thead><tr>", escape(&table.caption)));
    for column in &table.columns {
        put(out, format_args!("<th scope=\"col\"{}>{}</th>", class(column.numeric), escape(&column.name)));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for (column, cell) in table.cells(row) {
            put(out, format_args!("<td{}>{}</td>", class(column.numeric), escape(cell)));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n");
}

fn figure(out: &mut String, plot: &Plot) {
    put(out, format_args!("<figure>\n<figcaption>{}</figcaption>", escape(&plot.title)));
    // One series needs no key: the title names it.
    if plot.series.len() > 1 {
        out.push_str("<ul class=\"key\">\n");
        for (i, series) in plot.series.iter().enumerate() {
            let shape = match series.mark {
                Mark::Line => "<line x1=\"1\" y1=\"6\" x2=\"21\" y2=\"6\"/>",
                Mark::Dot => "<circle cx=\"11\" cy=\"6\" r=\"4\"/>",
            };
            let dashed = if i >= svg::COLOURS { " dashed" } else { "" };
            let colour = i % svg::COLOURS;
            let swatch =
                format!("<svg class=\"swatch\" viewBox=\"0 0 22 12\"><g class=\"s{colour}{dashed}\">{shape}</g></svg>");
            put(out, format_args!("<li>{swatch}{}</li>", escape(&series.name)));
        }
        out.push_str("</ul>\n");
    }
    out.push_str(&svg::draw(plot));
    out.push_str("</figure>\n");
}

/// Writing to a `String` cannot fail.
fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").ok();
}

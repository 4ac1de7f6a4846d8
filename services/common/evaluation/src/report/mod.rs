//! What an evaluation found, as tables and plots: data first (serde), then one HTML page or plain text.
//!
//! [`Report::to_html`] is one file that needs no network and no script, in light and dark;
//! [`Report::to_text`] is for a terminal. Both escape what they print: a label that came from an event
//! cannot write markup or move a cursor.

mod html;
mod plots;
mod svg;
mod tables;
mod text;

use serde::{Deserialize, Serialize};

use crate::Interval;

/// A titled sequence of sections.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub title: String,
    /// Name and value, shown under the title: model, period, number of customers, seed.
    pub facts: Vec<(String, String)>,
    pub sections: Vec<Section>,
}

/// Blocks under one heading.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Section {
    pub title: String,
    pub blocks: Vec<Block>,
}

/// What a section is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Block {
    Text(String),
    Table(Table),
    Plot(Plot),
}

/// Cells as text. A row shorter than `columns` is filled with empty cells, a longer one is cut.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub caption: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// Numbers stand right, so that their digits line up.
    pub numeric: bool,
}

/// Series over shared axes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plot {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    /// Draws y = x in grey: chance for a ROC curve, truth for a calibration curve.
    pub diagonal: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    pub label: String,
    /// The shown range; `None` takes it from the points.
    pub range: Option<(f64, f64)>,
    /// Named positions, for categories; empty for a number line.
    pub ticks: Vec<(f64, String)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub name: String,
    pub points: Vec<Point>,
    pub mark: Mark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mark {
    /// Joined by a line; intervals are a band.
    Line,
    /// Single dots; intervals are whiskers.
    Dot,
}

/// A point that is not finite, or beyond 1e300, is left out of the drawing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub x: f64,
    pub y: f64,
    /// Lower and upper limit of y.
    pub interval: Option<(f64, f64)>,
}

impl Report {
    /// One self-contained page.
    pub fn to_html(&self) -> String {
        html::page(self)
    }

    /// Aligned tables; plots as tables of at most 12 of their points per series.
    pub fn to_text(&self) -> String {
        text::page(self)
    }
}

impl Table {
    /// The first column holds names, the others numbers.
    pub fn new(caption: impl Into<String>, columns: &[&str]) -> Self {
        let column = |(i, name): (usize, &&str)| Column { name: (*name).to_owned(), numeric: i > 0 };
        let columns = columns.iter().enumerate().map(column).collect();
        Self { caption: caption.into(), columns, rows: Vec::new() }
    }

    /// The same table with the named columns holding text.
    pub fn with_text(mut self, names: &[&str]) -> Self {
        let texts = self.columns.iter_mut().filter(|column| names.contains(&column.name.as_str()));
        texts.for_each(|column| column.numeric = false);
        self
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) -> &mut Self {
        self.rows.push(cells.into_iter().map(Into::into).collect());
        self
    }

    /// Cells of a row, one per column.
    fn cells<'a>(&'a self, row: &'a [String]) -> impl Iterator<Item = (&'a Column, &'a str)> {
        self.columns.iter().enumerate().map(|(i, column)| (column, row.get(i).map_or("", String::as_str)))
    }
}

/// `[lower, upper]`.
pub fn limits(interval: &Interval) -> String {
    format!("[{}, {}]", number(interval.lower), number(interval.upper))
}

/// Four significant digits where it matters, whole numbers as they are.
pub fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if !value.is_finite() => "-".to_owned(),
        _ if value == value.trunc() && size < 1e9 => format!("{value:.0}"),
        _ if !(1e-4..1e9).contains(&size) => format!("{value:.2e}"),
        _ if size >= 100.0 => format!("{value:.1}"),
        _ if size >= 10.0 => format!("{value:.2}"),
        _ if size >= 1.0 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

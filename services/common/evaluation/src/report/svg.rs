//! A plot as inline SVG. Colours are CSS classes, so that the page decides light and dark.

use std::fmt::Write as _;

use super::html::escape;
use super::{Axis, Mark, Plot, Point, Series, number};

/// How many colours the page's style has; further series repeat them dashed.
pub(super) const COLOURS: usize = 6;

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 502.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 268.0;
/// A line with more points than this is drawn without a dot at each.
const DOTTED_UP_TO: usize = 30;

const LARGEST: f64 = 1e300;

/// Data to pixels.
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        LEFT + (value - self.x.0) / (self.x.1 - self.x.0) * (RIGHT - LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - (value - self.y.0) / (self.y.1 - self.y.0) * (BOTTOM - TOP)
    }
}

pub(super) fn draw(plot: &Plot) -> String {
    let points = || plot.series.iter().flat_map(|series| drawable(&series.points));
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
        escape(&format!("{}: {} by {}", plot.title, plot.y.label, plot.x.label))
    );
    if points().next().is_none() {
        let (x, y) = ((LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0);
        put(&mut out, format_args!("<text class=\"tick\" x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">no data</text>"));
        out.push_str("</svg>\n");
        return out;
    }
    let xs = range(&plot.x, points().map(|point| point.x), 0.0);
    let heights = points().flat_map(|point| {
        let limits = point.interval.into_iter().flat_map(|(lower, upper)| [lower, upper]);
        std::iter::once(point.y).chain(limits)
    });
    let frame = Frame { x: xs, y: range(&plot.y, heights, 0.06) };
    axes(&mut out, plot, &frame);
    if plot.diagonal {
        let (from, to) = (frame.x.0.max(frame.y.0), frame.x.1.min(frame.y.1));
        let (x1, y1, x2, y2) = (frame.x(from), frame.y(from), frame.x(to), frame.y(to));
        put(
            &mut out,
            format_args!("<line class=\"diagonal\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"),
        );
    }
    for (i, series) in plot.series.iter().enumerate() {
        let dashed = if i >= COLOURS { " dashed" } else { "" };
        put(&mut out, format_args!("<g class=\"s{}{dashed}\">", i % COLOURS));
        marks(&mut out, plot, series, &frame);
        put(&mut out, format_args!("</g>"));
    }
    out.push_str("</svg>\n");
    out
}

fn axes(out: &mut String, plot: &Plot, frame: &Frame) {
    for (value, label) in ticks(&plot.y, frame.y) {
        let y = frame.y(value);
        put(out, format_args!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"));
        let (x, y, label) = (LEFT - 8.0, y + 4.0, escape(&label));
        put(out, format_args!("<text class=\"tick\" x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{label}</text>"));
    }
    put(out, format_args!("<line class=\"axis\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{BOTTOM}\" y2=\"{BOTTOM}\"/>"));
    for (value, label) in ticks(&plot.x, frame.x) {
        let (x, end) = (frame.x(value), BOTTOM + 4.0);
        put(out, format_args!("<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{BOTTOM}\" y2=\"{end}\"/>"));
        let (y, label) = (BOTTOM + 18.0, escape(&label));
        put(out, format_args!("<text class=\"tick\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>"));
    }
    let (x, y, label) = ((LEFT + RIGHT) / 2.0, HEIGHT - 12.0, escape(&plot.x.label));
    put(out, format_args!("<text class=\"label\" x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>"));
    let (y, label) = ((TOP + BOTTOM) / 2.0, escape(&plot.y.label));
    let turn = format!("transform=\"rotate(-90 14 {y})\"");
    put(out, format_args!("<text class=\"label\" x=\"14\" y=\"{y}\" text-anchor=\"middle\" {turn}>{label}</text>"));
}

fn marks(out: &mut String, plot: &Plot, series: &Series, frame: &Frame) {
    let points: Vec<&Point> = drawable(&series.points).collect();
    let joined = |pairs: &mut dyn Iterator<Item = (f64, f64)>| {
        pairs.map(|(x, y)| format!("{:.1},{:.1}", frame.x(x), frame.y(y))).collect::<Vec<_>>().join(" ")
    };
    let limits = || points.iter().filter_map(|point| point.interval.map(|limits| (point.x, limits)));
    match series.mark {
        Mark::Line => {
            let upper = limits().map(|(x, (_, upper))| (x, upper));
            let lower = limits().map(|(x, (lower, _))| (x, lower)).collect::<Vec<_>>().into_iter().rev();
            let band = joined(&mut upper.chain(lower));
            if !band.is_empty() {
                put(out, format_args!("<polygon class=\"band\" points=\"{band}\"/>"));
            }
            let line = joined(&mut points.iter().map(|point| (point.x, point.y)));
            put(out, format_args!("<polyline points=\"{line}\"/>"));
        }
        Mark::Dot => {
            for (x, (lower, upper)) in limits() {
                let (x, top, bottom) = (frame.x(x), frame.y(upper), frame.y(lower));
                let (from, to) = (x - 4.0, x + 4.0);
                let path =
                    format!("M{x:.1} {bottom:.1}V{top:.1}M{from:.1} {top:.1}H{to:.1}M{from:.1} {bottom:.1}H{to:.1}");
                put(out, format_args!("<path class=\"whisker\" d=\"{path}\"/>"));
            }
        }
    }
    if series.mark == Mark::Dot || points.len() <= DOTTED_UP_TO {
        for point in points {
            let (x, y) = (frame.x(point.x), frame.y(point.y));
            let tip = escape(&format!("{}: {}, {}", series.name, position(&plot.x, point.x), number(point.y)));
            put(out, format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{tip}</title></circle>"));
        }
    }
}

/// How a reader names a position on `axis`: by its category, or by its number.
pub(super) fn position(axis: &Axis, value: f64) -> String {
    let nearest = axis.ticks.iter().min_by(|a, b| (a.0 - value).abs().total_cmp(&(b.0 - value).abs()));
    nearest.map_or_else(|| number(value), |(_, label)| label.clone())
}

/// Points whose pixels can be computed: sums and differences of what is above [`LARGEST`] overflow.
pub(super) fn drawable(points: &[Point]) -> impl Iterator<Item = &Point> {
    let shown = |value: f64| value.abs() <= LARGEST;
    let limits = move |point: &Point| point.interval.is_none_or(|(lower, upper)| shown(lower) && shown(upper));
    points.iter().filter(move |point| shown(point.x) && shown(point.y) && limits(point))
}

/// The axis's own range, or that of the values with a `margin` (a share of it) on both sides.
fn range(axis: &Axis, values: impl Iterator<Item = f64>, margin: f64) -> (f64, f64) {
    if let Some((from, to)) = axis.range.filter(|(from, to)| from.is_finite() && to.is_finite() && from < to) {
        return (from, to);
    }
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if high - low <= f64::EPSILON * high.abs() {
        let around = if high == 0.0 { 1.0 } else { high.abs() / 2.0 };
        return (low - around, high + around);
    }
    (low - margin * (high - low), high + margin * (high - low))
}

/// Named ticks, or about five round numbers inside `range`.
fn ticks(axis: &Axis, (from, to): (f64, f64)) -> Vec<(f64, String)> {
    if !axis.ticks.is_empty() {
        return axis.ticks.iter().filter(|(at, _)| (from..=to).contains(at)).cloned().collect();
    }
    let rough = (to - from) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|s| s * power).find(|step| *step >= rough).unwrap_or(rough);
    let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
    let first = (from / step - 1e-9).ceil();
    let count = ((to / step + 1e-9).floor() - first).clamp(0.0, 20.0) as usize;
    // Adding 0.0 turns a negative zero into a zero.
    let tick = |i: usize| (first + i as f64) * step + 0.0;
    let label = |value: f64| {
        let plain = value.abs() < 1e7 && step >= 1e-5;
        if plain { format!("{value:.decimals$}") } else { number(value) }
    };
    (0..=count).map(|i| (tick(i), label(tick(i)))).collect()
}

/// Writing to a `String` cannot fail.
fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").ok();
}

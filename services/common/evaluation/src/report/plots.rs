//! The plots that an evaluation usually wants, from the types that hold their numbers.

use super::{Axis, Mark, Plot, Point, Series};
use crate::{Calibration, GainPoint, RocPoint, Segment};

/// A curve with a point per row is thinned to steps of this share of either axis: half a pixel.
const FINEST_STEP: f64 = 1.0 / 1000.0;

impl Point {
    pub fn at(x: f64, y: f64) -> Self {
        Self { x, y, interval: None }
    }
}

impl Series {
    pub fn line(name: impl Into<String>, points: Vec<Point>) -> Self {
        Self { name: name.into(), points, mark: Mark::Line }
    }
}

impl Axis {
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), ..Self::default() }
    }

    /// A number line of shares, 0 to 1.
    pub fn share(label: impl Into<String>) -> Self {
        Self { range: Some((0.0, 1.0)), ..Self::new(label) }
    }
}

impl Plot {
    /// A metric or loss by epoch; each series is `(name, values by epoch from 1)`.
    pub fn learning_curves(title: impl Into<String>, metric: &str, curves: &[(&str, &[f64])]) -> Self {
        let line = |(name, values): &(&str, &[f64])| {
            let points = values.iter().enumerate().map(|(epoch, y)| Point::at((epoch + 1) as f64, *y));
            Series::line(*name, points.collect())
        };
        let series = curves.iter().map(line).collect();
        Self { title: title.into(), x: Axis::new("epoch"), y: Axis::new(metric), series, diagonal: false }
    }

    /// ROC curves by model; the diagonal is chance.
    pub fn roc(title: impl Into<String>, curves: &[(&str, &[RocPoint])]) -> Self {
        let line = |(name, curve): &(&str, &[RocPoint])| {
            let points: Vec<Point> =
                curve.iter().map(|p| Point::at(p.false_positive_rate, p.true_positive_rate)).collect();
            Series::line(*name, thinned(&points))
        };
        let (x, y) = (Axis::share("false positive rate"), Axis::share("true positive rate"));
        Self { title: title.into(), x, y, series: curves.iter().map(line).collect(), diagonal: true }
    }

    /// Observed share by mean probability, a point per bin that has rows; the diagonal is truth.
    pub fn calibration(title: impl Into<String>, curves: &[(&str, &Calibration)]) -> Self {
        let line = |(name, calibration): &(&str, &Calibration)| {
            let points = calibration.curve.iter().map(|bin| Point::at(bin.mean_probability, bin.observed));
            Series::line(*name, points.collect())
        };
        let (x, y) = (Axis::share("mean predicted probability"), Axis::share("observed share"));
        Self { title: title.into(), x, y, series: curves.iter().map(line).collect(), diagonal: true }
    }

    /// Cumulative gain by fraction contacted, from (0, 0); the diagonal is a random choice.
    pub fn gain(title: impl Into<String>, curves: &[(&str, &[GainPoint])]) -> Self {
        let line = |(name, curve): &(&str, &[GainPoint])| {
            let reached = curve.iter().map(|point| Point::at(point.fraction, point.gain));
            Series::line(*name, std::iter::once(Point::at(0.0, 0.0)).chain(reached).collect())
        };
        let (x, y) = (Axis::share("share of customers contacted"), Axis::share("share of positives reached"));
        Self { title: title.into(), x, y, series: curves.iter().map(line).collect(), diagonal: true }
    }

    /// A metric with its interval by group, such as history length, one row of `models` per model with
    /// the same groups in the same order; groups without the metric are left out.
    pub fn by_segment(title: impl Into<String>, group: &str, metric: &str, models: &[(&str, &[Segment])]) -> Self {
        let width = models.len() as f64;
        let series = models.iter().enumerate().map(|(model, (name, segments))| {
            // Models stand side by side at each group, so that their whiskers do not cover each other.
            let shift = (model as f64 - (width - 1.0) / 2.0) * 0.6 / width;
            let points = segments.iter().enumerate().filter_map(|(at, segment)| {
                let interval = segment.interval.as_ref().ok()?;
                let limits = Some((interval.lower, interval.upper));
                Some(Point { x: at as f64 + shift, y: interval.estimate, interval: limits })
            });
            Series { name: (*name).to_owned(), points: points.collect(), mark: Mark::Dot }
        });
        let longest = models.iter().map(|(_, segments)| *segments).max_by_key(|segments| segments.len());
        let ticks: Vec<(f64, String)> =
            longest.into_iter().flatten().enumerate().map(|(at, segment)| (at as f64, segment.label.clone())).collect();
        let range = Some((-0.5, ticks.len() as f64 - 0.5));
        let x = Axis { label: group.to_owned(), range, ticks };
        Self { title: title.into(), x, y: Axis::new(metric), series: series.collect(), diagonal: false }
    }
}

/// The first and last point and every point that moved by at least [`FINEST_STEP`].
fn thinned(points: &[Point]) -> Vec<Point> {
    let mut kept: Vec<Point> = Vec::new();
    for (i, point) in points.iter().enumerate() {
        let moved = kept
            .last()
            .is_none_or(|last| (point.x - last.x).abs() >= FINEST_STEP || (point.y - last.y).abs() >= FINEST_STEP);
        if moved || i + 1 == points.len() {
            kept.push(*point);
        }
    }
    kept
}

//! What one aggregation remembers of a set of events.

use crate::{
    Error,
    distinct::{Distinct, Precision},
    quantile::Sketch,
    top::Top,
    views::Aggregate,
    wire::{self, Reader},
};

/// The state of an aggregation over a tile or over a lifetime.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Count(u64),
    Sum(f64),
    Mean {
        n: u64,
        sum: f64,
    },
    Min(f64),
    Max(f64),
    First {
        time: i64,
        value: f64,
    },
    Last {
        time: i64,
        value: f64,
    },
    Distinct(Distinct),
    Quantile(Sketch),
    /// Apart, so that a vector's cells are no larger for the lists beside it: a read makes hundreds of them.
    Top(Box<Top>),
}

/// What an event brings to a cell.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input<'a> {
    Number { time: i64, value: f64 },
    Hash(u64),
    Name { time: i64, name: &'a str },
}

fn smaller(a: f64, b: f64) -> f64 {
    if b.total_cmp(&a).is_lt() { b } else { a }
}

fn larger(a: f64, b: f64) -> f64 {
    if b.total_cmp(&a).is_gt() { b } else { a }
}

impl Cell {
    /// A cell that has seen one input. `None` for aggregates that are no cells.
    pub(crate) fn of(aggregate: Aggregate, input: Input<'_>, precision: Precision) -> Option<Self> {
        Some(match (aggregate, input) {
            (Aggregate::Count, Input::Number { .. }) => Self::Count(1),
            (Aggregate::Sum, Input::Number { value, .. }) => Self::Sum(value),
            (Aggregate::Mean | Aggregate::Ratio, Input::Number { value, .. }) => Self::Mean { n: 1, sum: value },
            (Aggregate::Min, Input::Number { value, .. }) => Self::Min(value),
            (Aggregate::Max, Input::Number { value, .. }) => Self::Max(value),
            (Aggregate::First, Input::Number { time, value }) => Self::First { time, value },
            (Aggregate::Last, Input::Number { time, value }) => Self::Last { time, value },
            (Aggregate::Distinct, Input::Hash(hash)) => {
                let mut distinct = Distinct::default();
                distinct.insert(hash, precision);
                Self::Distinct(distinct)
            }
            (Aggregate::Quantile { .. }, Input::Number { value, .. }) => {
                let mut sketch = Sketch::default();
                sketch.insert(value);
                Self::Quantile(sketch)
            }
            (Aggregate::TopK { half_life_ms, .. }, Input::Name { time, name }) => {
                let mut top = Top::new(half_life_ms);
                top.add(name, time, precision.exact());
                Self::Top(Box::new(top))
            }
            _ => return None,
        })
    }

    /// Adds one input. Of several events at one moment, `first` keeps the one that came first and
    /// `last` the one that came last.
    pub(crate) fn add(&mut self, input: Input<'_>, precision: Precision) {
        match (self, input) {
            (Self::Count(n), Input::Number { .. }) => *n = n.saturating_add(1),
            (Self::Sum(sum), Input::Number { value, .. }) => *sum += value,
            (Self::Mean { n, sum }, Input::Number { value, .. }) => {
                *n = n.saturating_add(1);
                *sum += value;
            }
            (Self::Min(min), Input::Number { value, .. }) => *min = smaller(*min, value),
            (Self::Max(max), Input::Number { value, .. }) => *max = larger(*max, value),
            (Self::First { time, value }, Input::Number { time: t, value: v }) if t < *time => {
                (*time, *value) = (t, v);
            }
            (Self::Last { time, value }, Input::Number { time: t, value: v }) if t >= *time => {
                (*time, *value) = (t, v);
            }
            (Self::Distinct(distinct), Input::Hash(hash)) => distinct.insert(hash, precision),
            (Self::Quantile(sketch), Input::Number { value, .. }) => sketch.insert(value),
            (Self::Top(top), Input::Name { time, name }) => top.add(name, time, precision.exact()),
            _ => {}
        }
    }

    /// Adds everything that another cell of the same aggregation has seen. Between different
    /// partitions there is no order of arrival: ties in time go to the larger value.
    pub(crate) fn merge(&mut self, other: &Self, precision: Precision) {
        match (self, other) {
            (Self::Count(n), Self::Count(m)) => *n = n.saturating_add(*m),
            (Self::Sum(sum), Self::Sum(more)) => *sum += more,
            (Self::Mean { n, sum }, Self::Mean { n: m, sum: more }) => {
                *n = n.saturating_add(*m);
                *sum += more;
            }
            (Self::Min(a), Self::Min(b)) => *a = smaller(*a, *b),
            (Self::Max(a), Self::Max(b)) => *a = larger(*a, *b),
            (Self::First { time, value }, Self::First { time: t, value: v })
                if t < time || (t == time && v.total_cmp(value).is_gt()) =>
            {
                (*time, *value) = (*t, *v);
            }
            (Self::Last { time, value }, Self::Last { time: t, value: v })
                if t > time || (t == time && v.total_cmp(value).is_gt()) =>
            {
                (*time, *value) = (*t, *v);
            }
            (Self::Distinct(a), Self::Distinct(b)) => a.merge(b, precision),
            (Self::Quantile(a), Self::Quantile(b)) => a.merge(b),
            (Self::Top(a), Self::Top(b)) => a.merge(b, precision.exact()),
            _ => {}
        }
    }

    pub(crate) fn value(&self, aggregate: Aggregate) -> f64 {
        match self {
            Self::Count(n) => *n as f64,
            Self::Sum(x) | Self::Min(x) | Self::Max(x) => *x,
            Self::Mean { n, sum } => sum / *n as f64,
            Self::First { value, .. } | Self::Last { value, .. } => *value,
            Self::Distinct(distinct) => distinct.count(),
            Self::Quantile(sketch) => match aggregate {
                Aggregate::Quantile { permille } => sketch.quantile(f64::from(permille) / 1_000.0),
                _ => f64::NAN,
            },
            Self::Top(_) => f64::NAN,
        }
    }

    pub(crate) fn top(&self) -> Option<&Top> {
        match self {
            Self::Top(top) => Some(top),
            _ => None,
        }
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Count(n) => wire::put_varint(out, *n),
            Self::Sum(x) | Self::Min(x) | Self::Max(x) => wire::put_f64(out, *x),
            Self::Mean { n, sum } => {
                wire::put_varint(out, *n);
                wire::put_f64(out, *sum);
            }
            Self::First { time, value } | Self::Last { time, value } => {
                wire::put_signed(out, *time);
                wire::put_f64(out, *value);
            }
            Self::Distinct(distinct) => distinct.put(out),
            Self::Quantile(sketch) => sketch.put(out),
            Self::Top(top) => top.put(out),
        }
    }

    pub(crate) fn get(aggregate: Aggregate, reader: &mut Reader<'_>, precision: Precision) -> Result<Self, Error> {
        Ok(match aggregate {
            Aggregate::Count => Self::Count(reader.varint()?),
            Aggregate::Sum => Self::Sum(reader.f64()?),
            Aggregate::Mean | Aggregate::Ratio => Self::Mean { n: reader.varint()?, sum: reader.f64()? },
            Aggregate::Min => Self::Min(reader.f64()?),
            Aggregate::Max => Self::Max(reader.f64()?),
            Aggregate::First => Self::First { time: reader.signed()?, value: reader.f64()? },
            Aggregate::Last => Self::Last { time: reader.signed()?, value: reader.f64()? },
            Aggregate::Distinct => Self::Distinct(Distinct::get(reader, precision)?),
            Aggregate::Quantile { .. } => Self::Quantile(Sketch::get(reader)?),
            Aggregate::TopK { half_life_ms, .. } => {
                Self::Top(Box::new(Top::get(half_life_ms, reader, precision.exact())?))
            }
            Aggregate::DecayedSum { .. } | Aggregate::TimeSince => {
                return Err(reader.corrupt("has a cell where there is none"));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_four_words_whatever_it_can_hold() {
        assert!(size_of::<Cell>() <= 32, "{}", size_of::<Cell>());
    }
}

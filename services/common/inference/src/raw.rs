//! A run of a model with tensors as its graph names them: what goes in is checked, what comes out is as the
//! graph gave it.

use ort::{
    session::Session,
    value::{TensorElementType, ValueType},
};

use crate::Error;

/// Rows of one run.
pub const MAX_ROWS: usize = 64;
/// Elements of one row of an input.
pub const MAX_LENGTH: usize = 1024;
/// Elements that a run may give, 16 MiB of them.
pub const MAX_SCORES: usize = 4 << 20;

/// What a tensor holds. The contract of next-item models knows no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    Int64,
    Float32,
}

/// A tensor that a graph takes or gives. An axis without a fixed length is -1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    pub element: Element,
    pub shape: Vec<i64>,
}

/// What a graph takes and gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    pub inputs: Vec<TensorInfo>,
    pub outputs: Vec<TensorInfo>,
    /// Item indexes go from 0, which is padding, to below this.
    pub width: usize,
}

/// Values for an input, row after row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawInput {
    pub name: String,
    /// `[rows]` or `[rows, length]`.
    pub shape: Vec<usize>,
    pub values: Vec<i64>,
}

/// What an output holds, row after row.
#[derive(Debug, Clone, PartialEq)]
pub struct RawOutput {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Signature {
    pub(crate) fn of(session: &Session, width: usize) -> Self {
        let info = |outlet: &ort::value::Outlet| {
            let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else { return None };
            let element = match ty {
                TensorElementType::Int64 => Element::Int64,
                TensorElementType::Float32 => Element::Float32,
                _ => return None,
            };
            Some(TensorInfo { name: outlet.name().to_owned(), element, shape: shape.to_vec() })
        };
        Self {
            inputs: session.inputs().iter().filter_map(info).collect(),
            outputs: session.outputs().iter().filter_map(info).filter(|out| out.element == Element::Float32).collect(),
            width,
        }
    }

    /// Checks what would go into a run: every input once, of its rank, with as many rows as the others,
    /// within the bounds.
    ///
    /// # Errors
    /// [`Error::Input`] with the input and what is wrong with it.
    pub fn check(&self, inputs: &[RawInput]) -> Result<(), Error> {
        let wrong = |name: &str, reason: String| Err(Error::Input { name: name.to_owned(), reason });
        let names = || self.inputs.iter().map(|input| input.name.as_str()).collect::<Vec<_>>().join(", ");
        for wanted in &self.inputs {
            match inputs.iter().filter(|input| input.name == wanted.name).count() {
                1 => {}
                0 => return wrong(&wanted.name, format!("is missing; the model takes {}", names())),
                _ => return wrong(&wanted.name, "is there more than once".into()),
            }
        }
        let rows = inputs.first().and_then(|input| input.shape.first()).copied().unwrap_or(0);
        for input in inputs {
            let Some(wanted) = self.inputs.iter().find(|wanted| wanted.name == input.name) else {
                return wrong(&input.name, format!("is not known; the model takes {}", names()));
            };
            if input.shape.len() != wanted.shape.len() {
                let reason = format!("must have {} axes, has {}", wanted.shape.len(), input.shape.len());
                return wrong(&input.name, reason);
            }
            if input.shape.first() != Some(&rows) || !(1..=MAX_ROWS).contains(&rows) {
                let reason = format!(
                    "must have 1 to {MAX_ROWS} rows, as many as the other inputs; its shape is {:?}",
                    input.shape
                );
                return wrong(&input.name, reason);
            }
            let length = input.shape.get(1).copied().unwrap_or(1);
            if !(1..=MAX_LENGTH).contains(&length) {
                return wrong(&input.name, format!("must have 1 to {MAX_LENGTH} elements in a row, has {length}"));
            }
            if input.values.len() != rows * length {
                let reason = format!("has {} values for the shape {:?}", input.values.len(), input.shape);
                return wrong(&input.name, reason);
            }
            let known = |value: &&i64| usize::try_from(**value).is_ok_and(|index| index < self.width);
            if input.name == crate::graph::INPUT
                && let Some(index) = input.values.iter().find(|value| !known(value))
            {
                return wrong(
                    &input.name,
                    format!("item index {index} is not in 0 to {}", self.width.saturating_sub(1)),
                );
            }
        }
        if rows.saturating_mul(self.width) > MAX_SCORES {
            let most = MAX_SCORES / self.width.max(1);
            let name = inputs.first().map_or("", |input| input.name.as_str());
            return wrong(name, format!("has {rows} rows; a model of {} scores takes {most} at once", self.width));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature() -> Signature {
        let tensor =
            |name: &str, element, shape: &[i64]| TensorInfo { name: name.into(), element, shape: shape.to_vec() };
        Signature {
            inputs: vec![tensor("items", Element::Int64, &[-1, -1]), tensor("now", Element::Int64, &[-1])],
            outputs: vec![tensor("scores", Element::Float32, &[-1, 5])],
            width: 5,
        }
    }

    fn input(name: &str, shape: &[usize], values: &[i64]) -> RawInput {
        RawInput { name: name.into(), shape: shape.to_vec(), values: values.to_vec() }
    }

    #[test]
    fn what_does_not_fit_the_graph_is_named() {
        let error = |inputs: &[RawInput]| signature().check(inputs).unwrap_err().to_string();
        let (items, now) = (input("items", &[2, 2], &[0, 1, 2, 4]), input("now", &[2], &[7, 7]));
        signature().check(&[items.clone(), now.clone()]).unwrap();
        assert_eq!(error(std::slice::from_ref(&items)), "now: is missing; the model takes items, now");
        assert_eq!(error(&[items.clone(), now.clone(), now.clone()]), "now: is there more than once");
        let more = input("time", &[2], &[1, 1]);
        assert!(error(&[items.clone(), now.clone(), more]).starts_with("time: is not known"));
        assert_eq!(error(&[input("items", &[4], &[1; 4]), now.clone()]), "items: must have 2 axes, has 1");
        assert!(error(&[items.clone(), input("now", &[1], &[7])]).starts_with("now: must have 1 to 64 rows"));
        assert!(error(&[input("items", &[2, 2], &[1]), now.clone()]).starts_with("items: has 1 values"));
        assert_eq!(error(&[input("items", &[2, 1], &[1, 5]), now.clone()]), "items: item index 5 is not in 0 to 4");
        assert!(error(&[input("items", &[2, 0], &[]), now]).starts_with("items: must have 1 to 1024 elements"));
        let (many, nows) = (input("items", &[65, 1], &[1; 65]), input("now", &[65], &[1; 65]));
        assert!(error(&[many, nows]).starts_with("items: must have 1 to 64 rows"));
    }

    #[test]
    fn a_large_catalogue_takes_fewer_rows() {
        let large = Signature { width: 1 << 20, ..signature() };
        let of = |rows: usize| [input("items", &[rows, 1], &vec![1; rows]), input("now", &[rows], &vec![1; rows])];
        large.check(&of(4)).unwrap();
        assert!(large.check(&of(5)).unwrap_err().to_string().contains("takes 4 at once"));
    }
}

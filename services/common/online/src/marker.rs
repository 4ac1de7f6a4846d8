//! Which views a stored state is whole by.

use std::fmt;

/// A note beside a state, once views have changed under it. A state without a note is of the views that the
/// store began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// The generation of views that the state is folded by.
    pub generation: u32,
    /// The features that are new in it hold the events above this offset alone; `None` when they hold all.
    pub begins: Option<i64>,
}

impl Marker {
    /// What a state becomes that is folded on by this generation; `fence` is the last offset that it holds,
    /// `None` of a state that begins now.
    pub fn taken_over(stored: Option<Self>, fence: Option<i64>, generation: u32) -> Option<Self> {
        match (stored, fence) {
            (Some(marker), _) if marker.generation == generation => Some(marker),
            (stored, _) if generation == 0 => stored,
            (_, begins) => Some(Self { generation, begins }),
        }
    }

    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (generation, begins) = match text.split_once('@') {
            None => (text, None),
            Some((generation, begins)) => (generation, Some(begins.parse().ok()?)),
        };
        Some(Self { generation: generation.parse().ok()?, begins })
    }
}

/// `3`, or `3@41` while what came up to offset 41 is missing.
impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.begins {
            None => write!(f, "{}", self.generation),
            Some(begins) => write!(f, "{}@{begins}", self.generation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_reads_back_and_nothing_else_is_one() {
        for marker in [Marker { generation: 3, begins: None }, Marker { generation: 1, begins: Some(41) }] {
            assert_eq!(Marker::parse(marker.to_string().as_bytes()), Some(marker));
        }
        for text in ["", "@", "3@", "x", "-1", "3@x"] {
            assert_eq!(Marker::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_state_of_before_begins_after_what_it_holds_and_a_new_one_is_whole() {
        let of = |generation, begins| Some(Marker { generation, begins });
        assert_eq!(Marker::taken_over(None, Some(9), 0), None, "views have never changed");
        assert_eq!(Marker::taken_over(None, Some(9), 2), of(2, Some(9)));
        assert_eq!(Marker::taken_over(of(1, None), Some(9), 2), of(2, Some(9)));
        assert_eq!(Marker::taken_over(of(2, Some(4)), Some(9), 2), of(2, Some(4)), "it began before");
        assert_eq!(Marker::taken_over(None, None, 2), of(2, None));
    }
}

//! Which parts an answer had to do without.

/// A part that can be down or slow while answers go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What is known about the customer or the trends: Redis, behind the feature store.
    Features,
    /// The announced model: it failed, was late, or cannot be loaded.
    Model,
    /// The catalog has not been read to its end yet: sold-out items may show, titles may be missing.
    Catalog,
    /// Cached lists: Redis again.
    Cache,
}

impl Part {
    const ALL: [Self; 4] = [Self::Features, Self::Model, Self::Catalog, Self::Cache];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Features => "features",
            Self::Model => "model",
            Self::Catalog => "catalog",
            Self::Cache => "cache",
        }
    }
}

/// A set of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Degraded(u8);

impl Degraded {
    pub fn add(&mut self, part: Part) {
        self.0 |= 1 << part as u8;
    }

    pub fn merge(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn parts(self) -> impl Iterator<Item = Part> {
        Part::ALL.into_iter().filter(move |part| self.0 & (1 << *part as u8) != 0)
    }

    /// As they stand in `Provenance.degraded`.
    pub fn names(self) -> Vec<String> {
        self.parts().map(|part| part.name().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_named_once_however_often_it_failed() {
        let mut degraded = Degraded::default();
        assert!(degraded.is_empty());
        degraded.add(Part::Cache);
        degraded.add(Part::Cache);
        degraded.add(Part::Features);
        assert_eq!(degraded.names(), ["features", "cache"]);
    }
}

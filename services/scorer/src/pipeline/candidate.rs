use std::sync::Arc;

/// A source, in the order of trust: the model's own order first, then what resembles the last
/// items, then what customers of the segment like, then what everybody likes, then new items that the model does not know, then the order in which
/// the caller gave them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tag {
    Sequence,
    Ridge,
    Similar,
    PopularIn,
    Trending,
    ColdStart,
    Caller,
}

impl Tag {
    pub const ALL: [Self; 7] =
        [Self::Sequence, Self::Ridge, Self::Similar, Self::PopularIn, Self::Trending, Self::ColdStart, Self::Caller];

    /// The name on the wire and on metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sequence => "sequence",
            Self::Ridge => "ridge",
            Self::Similar => "similar",
            Self::PopularIn => "popular_in",
            Self::Trending => "trending",
            Self::ColdStart => "cold_start",
            Self::Caller => "caller",
        }
    }

    /// As it stands in cached lists: a bit never changes its meaning.
    const fn bit(self) -> u8 {
        match self {
            Self::Sequence => 1,
            Self::Ridge => 1 << 1,
            Self::Similar => 1 << 2,
            Self::Trending => 1 << 3,
            Self::Caller => 1 << 4,
            Self::ColdStart => 1 << 5,
            Self::PopularIn => 1 << 6,
        }
    }
}

/// The sources that named an item: one bit each, as they stand in a cached list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceSet(u8);

impl SourceSet {
    pub const fn of(tag: Tag) -> Self {
        Self(tag.bit())
    }

    /// Bits that no source of this build has are dropped, so that a list which a newer build wrote
    /// can be read.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 0b111_1111)
    }

    pub const fn bits(self) -> u8 {
        self.0
    }

    pub const fn with(self, tag: Tag) -> Self {
        Self(self.0 | tag.bit())
    }

    pub const fn holds(self, tag: Tag) -> bool {
        self.0 & tag.bit() != 0
    }

    /// Most trusted first.
    pub fn names(self) -> Vec<String> {
        Tag::ALL.into_iter().filter(|tag| self.holds(*tag)).map(|tag| tag.name().to_owned()).collect()
    }
}

/// What a source proposes. Scores are comparable within one source only.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    pub item: Arc<str>,
    pub score: f32,
}

/// An item after merging: the score of its most trusted source, and everyone who named it.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    pub item: Arc<str>,
    pub tier: Tag,
    pub score: f32,
    pub sources: SourceSet,
}

/// An item in its final place. Scores never grow from one to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    pub item: Arc<str>,
    pub score: f32,
    pub sources: SourceSet,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_in_the_order_of_trust() {
        let set = SourceSet::of(Tag::Trending).with(Tag::Sequence);
        assert_eq!(set.names(), ["sequence", "trending"]);
        assert_eq!(SourceSet::from_bits(set.bits()), set);
        let both = SourceSet::of(Tag::Caller).with(Tag::ColdStart);
        assert_eq!((both.names(), both.bits()), (vec!["cold_start".to_owned(), "caller".to_owned()], 0b11_0000));
        assert_eq!(SourceSet::from_bits(0b1000_0000), SourceSet::default(), "bits of a newer build are ignored");
    }
}

//! Checked declarations: what a view file becomes, ready to fold with.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use rapport_events::CleanEvent;

use crate::{Error, OnDemand, Wanted, item_hash};

pub(crate) const MINUTE_MS: i64 = 60_000;
pub(crate) const HOUR_MS: i64 = 60 * MINUTE_MS;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;

/// How many tiles a window has. Every window is whole minutes, so a tile is whole 2.5 seconds.
pub const TILES: i64 = 24;

/// What a view is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entity {
    Customer,
    Item,
    /// One customer and one category: what somebody thinks of "Comedy".
    CustomerCategory,
    /// One visit of a customer.
    Session,
    /// All customers of a segment that the tenant's policy declares.
    Segment,
}

impl Entity {
    pub const ALL: [Self; 5] = [Self::Customer, Self::Item, Self::CustomerCategory, Self::Session, Self::Segment];
    /// Those that customers share: each source partition keeps its part of one, and a read adds them up.
    pub const SHARED: [Self; 2] = [Self::Item, Self::Segment];
    /// Their names, for a refusal.
    pub const NAMES: &'static str = "customer, item, customer_category, session or segment";

    pub const fn name(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Item => "item",
            Self::CustomerCategory => "customer_category",
            Self::Session => "session",
            Self::Segment => "segment",
        }
    }

    /// Which one of them an event is about, of an entity that customers share.
    pub fn shared_of(self, event: &CleanEvent) -> Option<&str> {
        match self {
            Self::Item => event.item_id.as_deref(),
            Self::Segment => event.segment.as_deref(),
            Self::Customer | Self::CustomerCategory | Self::Session => None,
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|entity| entity.name() == name)
    }

    /// The part of its customer that an event belongs to, of an entity that is one.
    pub(crate) fn part_of(self, event: &CleanEvent) -> Option<&str> {
        match self {
            Self::CustomerCategory => event.category.as_deref(),
            Self::Session => event.session_id.as_deref(),
            Self::Customer | Self::Item | Self::Segment => None,
        }
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How events become a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aggregate {
    Count,
    Sum,
    Mean,
    Min,
    Max,
    First,
    Last,
    Distinct,
    /// Sum of x * 2^(-age / half life).
    DecayedSum {
        half_life_ms: i64,
    },
    /// Seconds since the newest matching event.
    TimeSince,
    /// The share of the events that are of some types.
    Ratio,
    /// The value below which so many thousandths of the values lie.
    Quantile {
        permille: u16,
    },
    /// The things that came up most often, most often first; with a half life, each counts as in a decayed sum.
    TopK {
        k: u8,
        half_life_ms: Option<i64>,
    },
}

impl Aggregate {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Min => "min",
            Self::Max => "max",
            Self::First => "first",
            Self::Last => "last",
            Self::Distinct => "distinct",
            Self::DecayedSum { .. } => "decayed_sum",
            Self::TimeSince => "time_since",
            Self::Ratio => "ratio",
            Self::Quantile { .. } => "quantile",
            Self::TopK { .. } => "top_k",
        }
    }

    /// Whether its state is one number or two, whatever its window.
    pub(crate) const fn is_no_cell(self) -> bool {
        matches!(self, Self::TimeSince | Self::DecayedSum { .. })
    }

    /// What it is of no event.
    pub(crate) const fn of_nothing(self) -> f64 {
        match self {
            Self::Count | Self::Sum | Self::Distinct | Self::DecayedSum { .. } => 0.0,
            Self::Mean
            | Self::Min
            | Self::Max
            | Self::First
            | Self::Last
            | Self::TimeSince
            | Self::Ratio
            | Self::Quantile { .. }
            | Self::TopK { .. } => f64::NAN,
        }
    }
}

/// What of an event is aggregated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Each event is 1.
    Events,
    /// The event's `value`; events without one do not count.
    Value,
    Item,
    Category,
    Customer,
    Session,
}

impl Measure {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Value => "value",
            Self::Item => "item",
            Self::Category => "category",
            Self::Customer => "customer",
            Self::Session => "session",
        }
    }

    pub(crate) fn number(self, event: &CleanEvent) -> Option<f64> {
        match self {
            Self::Events => Some(1.0),
            // The cleaner lets finite values through only; a fold must not break if one slips in.
            Self::Value => event.value.filter(|x| x.is_finite()),
            Self::Item | Self::Category | Self::Customer | Self::Session => None,
        }
    }

    pub(crate) fn name_in(self, event: &CleanEvent) -> Option<&str> {
        match self {
            Self::Item => event.item_id.as_deref(),
            Self::Category => event.category.as_deref(),
            Self::Customer => Some(&event.customer_id),
            Self::Session => event.session_id.as_deref(),
            Self::Events | Self::Value => None,
        }
    }

    pub(crate) fn hash(self, event: &CleanEvent) -> Option<u64> {
        self.name_in(event).map(item_hash)
    }
}

/// How far back a feature looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    Lifetime,
    /// [`TILES`] tiles of this many milliseconds. A read at `now` covers the tile that `now` is in
    /// and the 23 before it: between 23/24 of the window and all of it.
    Tiles {
        tile_ms: i64,
    },
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lifetime => f.write_str("lifetime"),
            Self::Tiles { tile_ms } => {
                let minutes = tile_ms * TILES / MINUTE_MS;
                match (minutes % (24 * 60), minutes % 60) {
                    (0, _) => write!(f, "{}d", minutes / (24 * 60)),
                    (_, 0) => write!(f, "{}h", minutes / 60),
                    _ => write!(f, "{minutes}m"),
                }
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Feature {
    pub aggregate: Aggregate,
    pub measure: Measure,
    pub window: Window,
    /// Names the slot in stored bytes: a hash of the whole definition, so that a changed
    /// definition starts from nothing instead of reading another feature's state.
    pub fingerprint: u32,
    /// `None`: events of every type.
    pub types: Option<BTreeSet<String>>,
    /// Of a ratio: the types that are counted among them.
    pub part: Option<BTreeSet<String>>,
}

impl Feature {
    /// Whether its value is a list of names, and no number.
    pub(crate) const fn is_list(&self) -> bool {
        matches!(self.aggregate, Aggregate::TopK { .. })
    }

    /// What an event brings to a sum, a mean or the like.
    pub(crate) fn number(&self, event: &CleanEvent) -> Option<f64> {
        match &self.part {
            Some(part) => Some(f64::from(u8::from(part.contains(&event.kind)))),
            None => self.measure.number(event),
        }
    }
}

/// All features of one entity kind: those whose values are numbers, then those whose values are lists, each in
/// the order of their declaration.
#[derive(Debug)]
pub(crate) struct Plan {
    pub entity: Entity,
    pub features: Vec<Feature>,
    pub names: Vec<String>,
    /// Where the lists begin.
    pub lists_from: usize,
    /// The vector of an entity that nothing has happened to.
    pub nothing: Vec<f64>,
    by_type: HashMap<String, Vec<usize>>,
    any_type: Vec<usize>,
    pub by_fingerprint: HashMap<u32, usize>,
}

impl Plan {
    pub(crate) fn new(entity: Entity, features: Vec<Feature>, names: Vec<String>) -> Result<Self, Error> {
        let (lists, numbers): (Vec<_>, Vec<_>) = features.into_iter().zip(names).partition(|(f, _)| f.is_list());
        let lists_from = numbers.len();
        let (features, names): (Vec<_>, Vec<_>) = numbers.into_iter().chain(lists).unzip();
        let matching = |wanted: Option<&String>| -> Vec<usize> {
            let matches = |f: &Feature| f.types.as_ref().is_none_or(|t| wanted.is_some_and(|w| t.contains(w)));
            features.iter().enumerate().filter(|(_, f)| matches(f)).map(|(i, _)| i).collect()
        };
        let any_type = matching(None);
        let types: BTreeSet<&String> = features.iter().filter_map(|f| f.types.as_ref()).flatten().collect();
        let by_type = types.into_iter().map(|t| (t.clone(), matching(Some(t)))).collect();
        let mut by_fingerprint = HashMap::new();
        for (i, feature) in features.iter().enumerate() {
            if let Some(other) = by_fingerprint.insert(feature.fingerprint, i) {
                return Err(Error::Declaration {
                    at: format!("views.{}", names[i]),
                    reason: format!("has the same hash as {}; rename one of them", names[other]),
                });
            }
        }
        let nothing = features.iter().take(lists_from).map(|feature| feature.aggregate.of_nothing()).collect();
        Ok(Self { entity, features, names, lists_from, nothing, by_type, any_type, by_fingerprint })
    }

    pub(crate) fn numbers(&self) -> &[Feature] {
        self.features.get(..self.lists_from).unwrap_or_default()
    }

    pub(crate) fn lists(&self) -> &[Feature] {
        self.features.get(self.lists_from..).unwrap_or_default()
    }

    /// The features that an event of this type feeds.
    pub(crate) fn fed_by(&self, kind: &str) -> &[usize] {
        self.by_type.get(kind).unwrap_or(&self.any_type)
    }
}

/// Where a feature's value stands in what is read of its entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the vector, whose columns are [`Views::names`].
    Number(usize),
    /// Among the lists, which are [`Views::list_names`].
    List(usize),
    /// Among [`Views::on_demand`].
    OnDemand(usize),
}

/// A feature, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureInfo {
    pub name: String,
    pub place: Place,
    pub aggregate: &'static str,
    /// `1h`, `7d`, `lifetime`, or the half life of a decayed sum; empty on demand.
    pub window: String,
    pub description: String,
    /// The request values that it takes, on demand.
    pub request_values: Vec<String>,
}

/// A view, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewInfo {
    pub name: String,
    pub entity: Entity,
    pub description: String,
    pub features: Vec<FeatureInfo>,
    /// For how long after the entity's newest event a value may be used; `None`: for ever. It is advice
    /// to readers: no fold and no vector changes with it.
    pub max_age: Option<Duration>,
    pub(crate) types: Option<BTreeSet<String>>,
}

/// How trending items are weighed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TrendRules {
    pub half_life_ms: i64,
    pub default_weight: f64,
    pub weights: HashMap<String, f64>,
}

/// A checked set of views. Share it as `Arc<Views>`.
#[derive(Debug)]
pub struct Views {
    pub(crate) views: Vec<ViewInfo>,
    pub(crate) customer: Arc<Plan>,
    pub(crate) item: Arc<Plan>,
    pub(crate) category: Arc<Plan>,
    pub(crate) session: Arc<Plan>,
    pub(crate) segment: Arc<Plan>,
    /// By entity.
    pub(crate) on_demand: [Vec<OnDemand>; Entity::ALL.len()],
    pub(crate) request_values: BTreeMap<String, Wanted>,
    pub(crate) seen: Option<BTreeSet<String>>,
    pub(crate) trends: TrendRules,
    pub(crate) schema_hash: String,
}

impl Views {
    /// The views that come with Rapport (`default_views.yaml`).
    ///
    /// # Errors
    /// None in practice: a test parses the file.
    pub fn built_in() -> Result<Self, Error> {
        Self::parse(include_str!("default_views.yaml"))
    }

    /// # Errors
    /// The place in the file and what is wrong there.
    pub fn parse(yaml: &str) -> Result<Self, Error> {
        crate::declare::parse(yaml)
    }

    /// The views in the order of the file.
    pub fn views(&self) -> &[ViewInfo] {
        &self.views
    }

    pub(crate) fn plan(&self, entity: Entity) -> &Arc<Plan> {
        match entity {
            Entity::Customer => &self.customer,
            Entity::Item => &self.item,
            Entity::CustomerCategory => &self.category,
            Entity::Session => &self.session,
            Entity::Segment => &self.segment,
        }
    }

    /// The views of a customer that an event of this type changes.
    pub fn changed_by<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a str> {
        let views = self.views.iter().filter(|view| !Entity::SHARED.contains(&view.entity));
        views.filter(move |view| view.types.as_ref().is_none_or(|t| t.contains(kind))).map(|view| view.name.as_str())
    }

    /// A hash of every definition and of the format of states: models say which one they were
    /// trained with. Descriptions and maximal ages do not count.
    pub fn schema_hash(&self) -> &str {
        &self.schema_hash
    }

    pub(crate) fn is_seen_type(&self, kind: &str) -> bool {
        self.seen.as_ref().is_none_or(|types| types.contains(kind))
    }
}

//! View files: YAML in, checked [`Views`] out, or an error that says where.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use rapport_events::EventType;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Error, Fitted, on_demand,
    views::{
        Aggregate, DAY_MS, Entity, Feature, FeatureInfo, HOUR_MS, MINUTE_MS, Measure, Place, Plan, TILES, TrendRules,
        ViewInfo, Views, Window,
    },
};

/// Bytes of a view file; more is a mistake, not a declaration.
const FILE_BYTES: usize = 1 << 20;
/// Features of one entity kind: a vector of this many doubles is still a few kilobytes.
pub(crate) const FEATURES: usize = 512;
const NAME_BYTES: usize = 64;
/// Names in a list; a state has room for 32 of a tile.
const MOST_K: u8 = 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    seen: Option<Filter>,
    trends: Option<Trends>,
    /// What features are normalised by: `rapportctl features fit` writes it.
    #[serde(default)]
    statistics: BTreeMap<String, Fitted>,
    views: Vec<View>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    #[serde(rename = "type")]
    types: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trends {
    half_life: String,
    #[serde(default = "one")]
    default_weight: f64,
    #[serde(default)]
    weights: BTreeMap<String, f64>,
}

fn one() -> f64 {
    1.0
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct View {
    name: String,
    entity: String,
    #[serde(default)]
    description: String,
    max_age: Option<String>,
    #[serde(rename = "where")]
    filter: Option<Filter>,
    #[serde(default)]
    features: Vec<FeatureDeclaration>,
    #[serde(default)]
    on_demand: Vec<on_demand::Declaration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeatureDeclaration {
    name: String,
    aggregate: String,
    of: Option<String>,
    window: Option<String>,
    windows: Option<Vec<String>>,
    half_life: Option<String>,
    /// Of a quantile: the share of the values that lie below it.
    quantile: Option<f64>,
    /// Of top_k: the length of the list.
    k: Option<u8>,
    /// Of a ratio: what is counted among the events.
    part: Option<Filter>,
    #[serde(rename = "where")]
    filter: Option<Filter>,
    #[serde(default)]
    description: String,
}

pub(crate) fn wrong(at: &str, reason: impl Into<String>) -> Error {
    Error::Declaration { at: at.to_owned(), reason: reason.into() }
}

pub(crate) fn parse(yaml: &str) -> Result<Views, Error> {
    if yaml.len() > FILE_BYTES {
        return Err(wrong("views", format!("the file may have {FILE_BYTES} bytes, has {}", yaml.len())));
    }
    let file: File = serde_yaml_ng::from_str(yaml).map_err(|error| Error::Yaml(error.to_string()))?;
    if file.version != 1 {
        return Err(wrong("version", format!("must be 1, is {}", file.version)));
    }
    let seen = file.seen.as_ref().map(|filter| types("seen", filter)).transpose()?;
    let trends = trend_rules(file.trends)?;
    for (of, fitted) in &file.statistics {
        fitted.check(&format!("statistics.{of}"))?;
    }

    let mut views = Vec::new();
    let mut names = HashSet::new();
    let mut compiled: [(Vec<Feature>, Vec<String>); Entity::ALL.len()] = Default::default();
    let mut canonical = String::from("state format 1\n");
    for view in &file.views {
        let at = format!("views.{}", view.name);
        check_name(&at, &view.name)?;
        if !names.insert(view.name.clone()) {
            return Err(wrong(&at, "is declared twice"));
        }
        let entity = Entity::parse(&view.entity).ok_or_else(|| {
            wrong(&format!("{at}.entity"), format!("must be {}, is {:?}", Entity::NAMES, view.entity))
        })?;
        let filter = view.filter.as_ref().map(|f| types(&at, f)).transpose()?;
        let max_age = view.max_age.as_deref().map(|age| duration(&format!("{at}.max_age"), age)).transpose()?;
        let (features, columns) = &mut compiled[entity as usize];
        let mut infos = Vec::new();
        for declaration in &view.features {
            for (name, mut info, feature) in expand(&at, &view.name, entity, filter.as_ref(), declaration)? {
                if columns.contains(&name) {
                    return Err(wrong(&format!("views.{name}"), "is declared twice"));
                }
                let before = features.iter().filter(|other: &&Feature| other.is_list() == feature.is_list()).count();
                info.place = if feature.is_list() { Place::List(before) } else { Place::Number(before) };
                canonical.push_str(&definition(entity, &name, &feature));
                features.push(feature);
                columns.push(name);
                infos.push(info);
            }
        }
        if infos.is_empty() && view.on_demand.is_empty() {
            return Err(wrong(&format!("{at}.features"), "is empty"));
        }
        if features.len() > FEATURES {
            return Err(wrong(&at, format!("an entity may have {FEATURES} features, {entity} has {}", features.len())));
        }
        views.push(ViewInfo {
            name: view.name.clone(),
            entity,
            description: view.description.clone(),
            features: infos,
            max_age: max_age.map(|ms| Duration::from_millis(ms.unsigned_abs())),
            types: filter,
        });
    }
    let (on_demand, request_values) =
        on_demand::computed(file.views.iter().map(|view| view.on_demand.as_slice()), &mut views, &file.statistics)?;
    for (entity, features) in Entity::ALL.into_iter().zip(&on_demand) {
        for feature in features {
            canonical.push_str(&format!("on demand {entity} {} {}\n", feature.name(), feature.definition()));
        }
    }
    canonical.push_str(&format!("seen {seen:?}\n"));
    let [customer, item, category, session, segment] = compiled;
    let plan = |entity, (features, names)| Plan::new(entity, features, names).map(Arc::new);
    Ok(Views {
        views,
        customer: plan(Entity::Customer, customer)?,
        item: plan(Entity::Item, item)?,
        category: plan(Entity::CustomerCategory, category)?,
        session: plan(Entity::Session, session)?,
        segment: plan(Entity::Segment, segment)?,
        on_demand,
        request_values,
        seen,
        trends,
        schema_hash: hex::encode(&Sha256::digest(canonical.as_bytes())[..8]),
    })
}

/// Everything that decides a feature's values, as a line of text.
fn definition(entity: Entity, name: &str, feature: &Feature) -> String {
    let Feature { aggregate, measure, window, types, part, .. } = feature;
    let part = part.as_ref().map(|part| format!(" part {part:?}")).unwrap_or_default();
    format!("{entity} {name} {aggregate:?} {measure:?} {window:?} {types:?}{part}\n")
}

pub(crate) fn check_name(at: &str, name: &str) -> Result<(), Error> {
    let good = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_');
    match name {
        "" => Err(wrong(at, "the name is empty")),
        name if name.len() > NAME_BYTES => Err(wrong(at, format!("the name may have {NAME_BYTES} bytes"))),
        name if !name.chars().all(good) => Err(wrong(at, "the name may hold a-z, 0-9 and '_'")),
        _ => Ok(()),
    }
}

fn types(at: &str, filter: &Filter) -> Result<BTreeSet<String>, Error> {
    types_of(&format!("{at}.where"), filter)
}

fn types_of(at: &str, filter: &Filter) -> Result<BTreeSet<String>, Error> {
    let at = format!("{at}.type");
    if filter.types.is_empty() {
        return Err(wrong(&at, "is empty; leave the filter out to take every type"));
    }
    let parse = |name: &String| EventType::parse(name).map_err(|e| wrong(&at, format!("{name:?} {}", e.reason)));
    filter.types.iter().map(|name| parse(name).map(EventType::into_string)).collect()
}

fn trend_rules(trends: Option<Trends>) -> Result<TrendRules, Error> {
    let Some(trends) = trends else {
        return Ok(TrendRules { half_life_ms: 7 * DAY_MS, default_weight: 1.0, weights: Default::default() });
    };
    let weights = trends.weights.iter().map(|(kind, weight)| (kind.as_str(), *weight));
    for (kind, weight) in weights.chain([("default_weight", trends.default_weight)]) {
        if !(0.0..=1e6).contains(&weight) {
            return Err(wrong(&format!("trends.weights.{kind}"), format!("must be 0 to 1000000, is {weight}")));
        }
    }
    Ok(TrendRules {
        half_life_ms: duration("trends.half_life", &trends.half_life)?,
        default_weight: trends.default_weight,
        weights: trends.weights.into_iter().collect(),
    })
}

/// A whole number of minutes (`5m`), hours (`12h`), days (`7d`) or weeks (`2w`), from 1m to 365d, in
/// milliseconds.
fn duration(at: &str, text: &str) -> Result<i64, Error> {
    let unit = match text.chars().last() {
        Some('m') => MINUTE_MS,
        Some('h') => HOUR_MS,
        Some('d') => DAY_MS,
        Some('w') => 7 * DAY_MS,
        _ => 0,
    };
    let number = text.get(..text.len().saturating_sub(1)).and_then(|n| n.parse::<u32>().ok());
    let ms = number.map(|n| i64::from(n).saturating_mul(unit));
    ms.filter(|ms| (MINUTE_MS..=365 * DAY_MS).contains(ms))
        .ok_or_else(|| wrong(at, format!("must be whole minutes, hours, days or weeks from 1m to 365d, is {text:?}")))
}

fn window(at: &str, text: &str) -> Result<Window, Error> {
    match text {
        "lifetime" => Ok(Window::Lifetime),
        text => Ok(Window::Tiles { tile_ms: duration(at, text)? / TILES }),
    }
}

fn aggregate(at: &str, declaration: &FeatureDeclaration) -> Result<Aggregate, Error> {
    let half_life = declaration.half_life.as_deref();
    let aggregate = match declaration.aggregate.as_str() {
        "count" => Aggregate::Count,
        "sum" => Aggregate::Sum,
        "mean" => Aggregate::Mean,
        "min" => Aggregate::Min,
        "max" => Aggregate::Max,
        "first" => Aggregate::First,
        "last" => Aggregate::Last,
        "distinct" => Aggregate::Distinct,
        "time_since" => Aggregate::TimeSince,
        "ratio" => Aggregate::Ratio,
        "quantile" => {
            let at = format!("{at}.quantile");
            let share = declaration.quantile.ok_or_else(|| wrong(&at, "is needed by quantile, for example 0.9"))?;
            let permille = (share * 1_000.0).round();
            if !(0.0..=1_000.0).contains(&permille) || (permille / 1_000.0 - share).abs() > 1e-9 {
                return Err(wrong(&at, format!("must be 0 to 1 in steps of 0.001, is {share}")));
            }
            Aggregate::Quantile { permille: permille as u16 }
        }
        "decayed_sum" => {
            let at = format!("{at}.half_life");
            let half_life = half_life.ok_or_else(|| wrong(&at, "is needed by decayed_sum, for example 7d"))?;
            Aggregate::DecayedSum { half_life_ms: duration(&at, half_life)? }
        }
        "top_k" => {
            let half_life_ms = half_life.map(|text| duration(&format!("{at}.half_life"), text)).transpose()?;
            let at = format!("{at}.k");
            let k = declaration.k.ok_or_else(|| wrong(&at, "is needed by top_k, for example 3"))?;
            if !(1..=MOST_K).contains(&k) {
                return Err(wrong(&at, format!("must be 1 to {MOST_K}, is {k}")));
            }
            Aggregate::TopK { k, half_life_ms }
        }
        other => {
            let reason = format!(
                "must be count, sum, mean, min, max, first, last, distinct, decayed_sum, time_since, ratio, quantile or \
                 top_k, is {other:?}"
            );
            return Err(wrong(&format!("{at}.aggregate"), reason));
        }
    };
    let FeatureDeclaration { quantile, part, k, .. } = declaration;
    let decays = matches!(aggregate, Aggregate::DecayedSum { .. } | Aggregate::TopK { .. });
    for (field, given, of, belongs) in [
        ("half_life", half_life.is_some(), "decayed_sum and top_k", decays),
        ("quantile", quantile.is_some(), "quantile", matches!(aggregate, Aggregate::Quantile { .. })),
        ("k", k.is_some(), "top_k", matches!(aggregate, Aggregate::TopK { .. })),
        ("part", part.is_some(), "ratio", aggregate == Aggregate::Ratio),
    ] {
        if given && !belongs {
            return Err(wrong(&format!("{at}.{field}"), format!("belongs to {of} only")));
        }
    }
    if aggregate == Aggregate::Ratio && part.is_none() {
        return Err(wrong(&format!("{at}.part"), "is needed by ratio"));
    }
    Ok(aggregate)
}

fn measure(at: &str, entity: Entity, aggregate: Aggregate, of: Option<&str>) -> Result<Measure, Error> {
    use Measure::{Category, Customer, Events, Item, Session, Value};
    let allowed: &[Measure] = match (aggregate, entity) {
        (Aggregate::Count | Aggregate::TimeSince | Aggregate::Ratio, _) => &[Events],
        (Aggregate::DecayedSum { .. }, _) => &[Value, Events],
        (Aggregate::Distinct, Entity::Customer) => &[Item, Category, Session],
        (Aggregate::Distinct | Aggregate::TopK { .. }, Entity::Session) => &[Item, Category],
        (Aggregate::Distinct, Entity::Item) => &[Customer, Category],
        (Aggregate::Distinct, Entity::Segment) => &[Customer, Item, Category],
        (Aggregate::Distinct, Entity::CustomerCategory) => &[Item],
        (Aggregate::TopK { .. }, Entity::Customer | Entity::Segment) => &[Category, Item],
        // Not customers: what they share outlives what is known of one of them.
        (Aggregate::TopK { .. }, Entity::Item) => &[Category],
        (Aggregate::TopK { .. }, Entity::CustomerCategory) => &[Item],
        _ => &[Value],
    };
    let Some(of) = of else { return Ok(allowed[0]) };
    allowed.iter().copied().find(|m| m.name() == of).ok_or_else(|| {
        let names: Vec<_> = allowed.iter().map(|m| m.name()).collect();
        let reason = format!("{} of a {entity} must be of {}, is {of:?}", aggregate.name(), names.join(" or "));
        wrong(&format!("{at}.of"), reason)
    })
}

/// One declaration is one feature, or one for each of its `windows` (`count_7d`, ...).
fn expand(
    view_at: &str,
    view: &str,
    entity: Entity,
    view_filter: Option<&BTreeSet<String>>,
    declaration: &FeatureDeclaration,
) -> Result<Vec<(String, FeatureInfo, Feature)>, Error> {
    let at = format!("{view_at}.{}", declaration.name);
    check_name(&at, &declaration.name)?;
    let aggregate = aggregate(&at, declaration)?;
    let measure = measure(&at, entity, aggregate, declaration.of.as_deref())?;
    let own_filter = declaration.filter.as_ref().map(|f| types(&at, f)).transpose()?;
    let types = match (view_filter, own_filter) {
        (Some(view), Some(own)) => {
            let both: BTreeSet<String> = view.intersection(&own).cloned().collect();
            if both.is_empty() {
                return Err(wrong(&format!("{at}.where.type"), "names no type that the view lets through"));
            }
            Some(both)
        }
        (view, own) => own.or_else(|| view.cloned()),
    };

    let part = declaration.part.as_ref().map(|part| types_of(&format!("{at}.part"), part)).transpose()?;
    if let (Some(types), Some(part)) = (&types, &part)
        && !part.is_subset(types)
    {
        return Err(wrong(&format!("{at}.part.type"), "names a type that is not among the events that are counted"));
    }

    let windowless = match aggregate {
        Aggregate::DecayedSum { .. } | Aggregate::TimeSince => true,
        Aggregate::TopK { half_life_ms, .. } => half_life_ms.is_some(),
        _ => false,
    };
    let windows: Vec<(String, Window)> = match (&declaration.window, &declaration.windows) {
        (None, None) => vec![(String::new(), Window::Lifetime)],
        _ if windowless => {
            let with = declaration.half_life.as_ref().map(|_| " with a half life").unwrap_or_default();
            return Err(wrong(&format!("{at}.window"), format!("{}{with} has no window", aggregate.name())));
        }
        (Some(one), None) => vec![(String::new(), window(&format!("{at}.window"), one)?)],
        (None, Some(many)) if !many.is_empty() => many
            .iter()
            .map(|text| Ok((format!("_{text}"), window(&format!("{at}.windows"), text)?)))
            .collect::<Result<_, Error>>()?,
        (None, Some(_)) => return Err(wrong(&format!("{at}.windows"), "is empty")),
        (Some(_), Some(_)) => return Err(wrong(&at, "has both window and windows; one is enough")),
    };

    let feature = |(suffix, window): (String, Window)| {
        let short = format!("{}{suffix}", declaration.name);
        let name = format!("{view}.{short}");
        let info = FeatureInfo {
            name: short,
            // Until it is known what stands before it.
            place: Place::Number(0),
            aggregate: aggregate.name(),
            window: match &declaration.half_life {
                Some(half_life) => format!("half life {half_life}"),
                None => window.to_string(),
            },
            description: declaration.description.clone(),
            request_values: Vec::new(),
        };
        let mut feature =
            Feature { aggregate, measure, window, fingerprint: 0, types: types.clone(), part: part.clone() };
        feature.fingerprint = xxh3_64(definition(entity, &name, &feature).as_bytes()) as u32;
        (name, info, feature)
    };
    Ok(windows.into_iter().map(feature).collect())
}

#[cfg(test)]
mod tests;

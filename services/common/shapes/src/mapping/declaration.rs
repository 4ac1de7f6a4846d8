//! The YAML of a mapping, read with the place of every mistake.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use serde_yaml_ng::Value as Yaml;

use super::{
    MAX_BYTES, Mapping, MappingError, Rule, Set,
    condition::{Condition, Test},
    path::Path,
    time_format::TimeFormat,
    value::{Factor, Get, Given, Members, Piece},
};

/// The most entries of `events`.
const MAX_RULES: usize = 50;
/// The most names in `properties` or `traits`, and the most parts of one.
const MAX_MEMBERS: usize = 200;
const MAX_NESTING: usize = 8;

/// A mapping's YAML.
pub(super) struct Declaration(Yaml);

impl Declaration {
    pub fn parse(text: &str) -> Result<Self, MappingError> {
        let error = |at: &str, reason: String| MappingError { at: at.to_owned(), reason };
        if text.len() > MAX_BYTES {
            return Err(error("mapping", format!("may have {MAX_BYTES} bytes, has {}", text.len())));
        }
        let read = || {
            let mut yaml: Yaml = serde_yaml_ng::from_str(text)?;
            // `<<: *row` takes over what another entry has.
            yaml.apply_merge()?;
            Ok(Self(yaml))
        };
        read().map_err(|yaml: serde_yaml_ng::Error| match yaml.location() {
            Some(place) => error(&format!("line {} column {}", place.line(), place.column()), yaml.to_string()),
            None => error("mapping", yaml.to_string()),
        })
    }
}

pub(super) fn mapping(declaration: &Declaration) -> Result<Mapping, MappingError> {
    let root = Node { at: String::new(), yaml: &declaration.0 };
    let fields = root.fields(&["version", "name", "events"])?;
    match fields.needed("version")?.yaml.as_u64() {
        Some(1) => {}
        _ => return Err(fields.needed("version")?.error("must be 1")),
    }
    let name = fields.needed("name")?.text()?;
    let events = fields.needed("events")?;
    let rules = events.list()?;
    if rules.is_empty() || rules.len() > MAX_RULES {
        return Err(events.error(format!("must have 1 to {MAX_RULES} entries, has {}", rules.len())));
    }
    Ok(Mapping { name, rules: rules.iter().map(rule).collect::<Result<_, _>>()? })
}

fn rule(node: &Node<'_>) -> Result<Rule, MappingError> {
    let fields = node.fields(&["when", "for_each", "set"])?;
    let for_each = match fields.get("for_each") {
        Some(node) => Some(node.path(false)?),
        None => None,
    };
    let each = for_each.is_some();
    let when = match fields.get("when") {
        None => Vec::new(),
        Some(node) if node.yaml.is_sequence() => {
            node.list()?.iter().map(|node| condition(node, each)).collect::<Result<_, _>>()?
        }
        Some(node) => vec![condition(&node, each)?],
    };
    Ok(Rule { when, for_each, set: set(&fields.needed("set")?, each)? })
}

fn condition(node: &Node<'_>, each: bool) -> Result<Condition, MappingError> {
    const TESTS: [&str; 8] = ["equals", "not_equals", "in", "not_in", "exists", "starts_with", "above", "below"];
    let fields = node.fields(&[&["path"], &TESTS[..]].concat())?;
    let path = fields.needed("path")?.path(each)?;
    let mut tests = TESTS.iter().filter_map(|name| Some((*name, fields.get(name)?)));
    let (Some((name, node)), None) = (tests.next(), tests.next()) else {
        return Err(node.error(format!("must have one of {} beside path", TESTS.join(", "))));
    };
    let test = match name {
        "equals" => Test::OneOf(vec![node.scalar()?]),
        "not_equals" => Test::NoneOf(vec![node.scalar()?]),
        "in" => Test::OneOf(node.scalars()?),
        "not_in" => Test::NoneOf(node.scalars()?),
        "exists" => Test::Exists(node.flag()?),
        "starts_with" => Test::StartsWith(node.text()?),
        "above" => Test::Above(node.number()?),
        _ => Test::Below(node.number()?),
    };
    Ok(Condition { path, test })
}

fn set(node: &Node<'_>, each: bool) -> Result<Set, MappingError> {
    let fields = node.fields(&[
        "type",
        "event_id",
        "customer_id",
        "anonymous_id",
        "item_id",
        "category",
        "value",
        "currency",
        "event_time",
        "sent_at",
        "properties",
        "traits",
    ])?;
    let given_at = |name: &str| fields.get(name).map(|node| given(&node, each)).transpose();
    let members_at = |name: &str| fields.get(name).map_or_else(|| Ok(Members::default()), |node| members(&node, each));
    if fields.get("customer_id").is_none() && fields.get("anonymous_id").is_none() {
        return Err(node.error("has neither customer_id nor anonymous_id; an event is somebody's"));
    }
    let kind = fields.needed("type")?;
    let literal = kind.yaml.as_str().filter(|text| !text.starts_with('$') && !text.contains("{$"));
    if let Some(Err(error)) = literal.map(rapport_events::EventType::parse) {
        return Err(kind.error(error.reason));
    }
    Ok(Set {
        kind: given(&kind, each)?,
        event_id: given_at("event_id")?,
        customer_id: given_at("customer_id")?,
        anonymous_id: given_at("anonymous_id")?,
        item_id: given_at("item_id")?,
        category: given_at("category")?,
        value: given_at("value")?,
        currency: given_at("currency")?,
        event_time: given_at("event_time")?,
        sent_at: given_at("sent_at")?,
        properties: members_at("properties")?,
        traits: members_at("traits")?,
    })
}

fn given(node: &Node<'_>, each: bool) -> Result<Given, MappingError> {
    let plain = |get| Given { get, trim: false, lower: false, multiply: Vec::new(), format: None };
    match node.yaml {
        Yaml::String(text) if text.starts_with('$') => return Ok(plain(Get::Path(node.path(each)?))),
        Yaml::String(text) if text.contains("{$") => return Ok(plain(Get::Template(template(node, text, each)?))),
        Yaml::Mapping(_) => {}
        _ => return Ok(plain(Get::Literal(node.scalar()?))),
    }
    const FROM: [&str; 4] = ["path", "template", "literal", "any"];
    let fields = node.fields(&[&FROM[..], &["trim", "lower", "multiply", "format", "timezone"]].concat())?;
    let mut from = FROM.iter().filter_map(|name| Some((*name, fields.get(name)?)));
    let (Some((name, source)), None) = (from.next(), from.next()) else {
        return Err(node.error("must have one of path, template, literal and any"));
    };
    let get = match name {
        "path" => Get::Path(source.path(each)?),
        "template" => Get::Template(template(&source, &source.text()?, each)?),
        "literal" => Get::Literal(source.scalar()?),
        _ => {
            let all = source.list()?;
            if all.is_empty() {
                return Err(source.error("is an empty list; name values, the first that gives something counts"));
            }
            Get::Any(all.iter().map(|node| given(node, each)).collect::<Result<_, _>>()?)
        }
    };
    let timezone = fields.get("timezone").map(|node| node.text()).transpose()?;
    let format = match (fields.get("format"), &timezone) {
        (Some(node), _) => {
            Some(TimeFormat::parse(&node.text()?, timezone.as_deref()).map_err(|reason| node.error(reason))?)
        }
        (None, Some(_)) => return Err(node.error("has a timezone without a format")),
        (None, None) => None,
    };
    let multiply = match fields.get("multiply") {
        None => Vec::new(),
        Some(node) if node.yaml.is_sequence() => {
            node.list()?.iter().map(|node| factor(node, each)).collect::<Result<_, _>>()?
        }
        Some(node) => vec![factor(&node, each)?],
    };
    let flag = |name: &str| fields.get(name).map_or(Ok(false), |node| node.flag());
    Ok(Given { get, trim: flag("trim")?, lower: flag("lower")?, multiply, format })
}

fn factor(node: &Node<'_>, each: bool) -> Result<Factor, MappingError> {
    match node.yaml {
        Yaml::String(_) => Ok(Factor::Path(node.path(each)?)),
        _ => Ok(Factor::Number(node.number()?)),
    }
}

/// `order-{$.id}`: text and paths.
fn template(node: &Node<'_>, text: &str, each: bool) -> Result<Vec<Piece>, MappingError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{$") {
        let Some((path, next)) = after.split_once('}') else {
            return Err(node.error(format!("{text:?} has a '{{$' without its '}}'")));
        };
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        pieces.push(Piece::Path(node.path_of(&format!("${path}"), each)?));
        rest = next;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

fn members(node: &Node<'_>, each: bool) -> Result<Members, MappingError> {
    if node.yaml.get("all").is_none() {
        return Ok(Members { set: names(node, each)?, ..Members::default() });
    }
    let fields = node.fields(&["all", "except", "set"])?;
    let all = fields.needed("all")?;
    let path = match all.yaml {
        Yaml::Bool(true) => all.path_of("$", each)?,
        Yaml::String(_) => all.path(each)?,
        _ => return Err(all.error("must be true (the whole body) or a path such as $each")),
    };
    let except = match fields.get("except") {
        Some(node) => node.list()?.iter().map(Node::text).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    let set = fields.get("set").map_or_else(|| Ok(Vec::new()), |node| names(&node, each))?;
    Ok(Members { all: Some(path), except, set })
}

fn names(node: &Node<'_>, each: bool) -> Result<Vec<(Vec<String>, Given)>, MappingError> {
    let mut taken = BTreeSet::new();
    let mut all = Vec::new();
    for (name, value) in node.entries()? {
        let parts: Vec<String> = name.split('.').map(str::to_owned).collect();
        if parts.iter().any(String::is_empty) || parts.len() > MAX_NESTING {
            return Err(value.error(format!("is no name: a name has 1 to {MAX_NESTING} parts between dots")));
        }
        all.push((parts, given(&value, each)?));
        taken.insert(format!("{name}."));
    }
    if all.len() > MAX_MEMBERS {
        return Err(node.error(format!("may have {MAX_MEMBERS} names, has {}", all.len())));
    }
    // Sorted, a name stands right before those inside it.
    if let Some((outer, inner)) =
        taken.iter().zip(taken.iter().skip(1)).find(|(outer, inner)| inner.starts_with(*outer))
    {
        let (outer, inner) = (outer.trim_end_matches('.'), inner.trim_end_matches('.'));
        return Err(node.error(format!("has both {outer} and {inner}, which stands inside it")));
    }
    Ok(all)
}

/// A place in the YAML.
#[derive(Debug, Clone)]
struct Node<'a> {
    at: String,
    yaml: &'a Yaml,
}

/// The fields of a map.
struct NodeFields<'a> {
    node: Node<'a>,
}

impl<'a> NodeFields<'a> {
    fn get(&self, name: &str) -> Option<Node<'a>> {
        Some(self.node.child(name, self.node.yaml.get(name)?))
    }

    fn needed(&self, name: &str) -> Result<Node<'a>, MappingError> {
        self.get(name).ok_or_else(|| self.node.child(name, self.node.yaml).error("is missing"))
    }
}

impl<'a> Node<'a> {
    fn child(&self, name: &str, yaml: &'a Yaml) -> Self {
        let at = if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) };
        Node { at, yaml }
    }

    fn error(&self, reason: impl Into<String>) -> MappingError {
        MappingError { at: if self.at.is_empty() { "mapping".into() } else { self.at.clone() }, reason: reason.into() }
    }

    fn must_be(&self, what: &str) -> MappingError {
        let is = match self.yaml {
            Yaml::Null => "empty",
            Yaml::Bool(_) => "true or false",
            Yaml::Number(_) => "a number",
            Yaml::String(_) => "a text",
            Yaml::Sequence(_) => "a list",
            Yaml::Mapping(_) => "a map",
            Yaml::Tagged(_) => "a tagged value",
        };
        self.error(format!("must be {what}, is {is}"))
    }

    fn entries(&self) -> Result<Vec<(&'a str, Self)>, MappingError> {
        let Yaml::Mapping(map) = self.yaml else { return Err(self.must_be("a map")) };
        map.iter()
            .map(|(name, value)| {
                let name = name.as_str().ok_or_else(|| self.error("has a name that is no text; quote it"))?;
                Ok((name, self.child(name, value)))
            })
            .collect()
    }

    fn fields(&self, known: &[&str]) -> Result<NodeFields<'a>, MappingError> {
        for (name, node) in self.entries()? {
            if !known.contains(&name) {
                return Err(node.error(format!("is not known here; {} are", known.join(", "))));
            }
        }
        Ok(NodeFields { node: self.clone() })
    }

    fn list(&self) -> Result<Vec<Self>, MappingError> {
        let Yaml::Sequence(items) = self.yaml else { return Err(self.must_be("a list")) };
        Ok(items.iter().enumerate().map(|(n, yaml)| Node { at: format!("{}[{n}]", self.at), yaml }).collect())
    }

    fn text(&self) -> Result<String, MappingError> {
        match self.yaml {
            Yaml::String(text) if !text.trim().is_empty() => Ok(text.clone()),
            Yaml::String(_) => Err(self.error("is empty")),
            _ => Err(self.must_be("a text")),
        }
    }

    fn flag(&self) -> Result<bool, MappingError> {
        self.yaml.as_bool().ok_or_else(|| self.must_be("true or false"))
    }

    fn number(&self) -> Result<f64, MappingError> {
        self.yaml.as_f64().filter(|number| number.is_finite()).ok_or_else(|| self.must_be("a finite number"))
    }

    fn scalar(&self) -> Result<Json, MappingError> {
        match self.yaml {
            Yaml::String(text) => Ok(Json::String(text.clone())),
            Yaml::Bool(flag) => Ok(Json::Bool(*flag)),
            Yaml::Number(number) => {
                serde_json::to_value(number).ok().filter(Json::is_number).ok_or_else(|| self.must_be("a finite number"))
            }
            Yaml::Sequence(_) => {
                Err(self.error("must be a value, is a list; for the first of several write {any: [...]}"))
            }
            _ => Err(self.must_be("a text, a number, or true or false")),
        }
    }

    fn scalars(&self) -> Result<Vec<Json>, MappingError> {
        self.list()?.iter().map(Node::scalar).collect()
    }

    fn path(&self, each: bool) -> Result<Path, MappingError> {
        self.path_of(&self.text()?, each)
    }

    fn path_of(&self, text: &str, each: bool) -> Result<Path, MappingError> {
        let path = Path::parse(text).map_err(|reason| self.error(reason))?;
        if path.of_each && !each {
            return Err(self.error(format!("{text} needs a for_each in the same entry of events")));
        }
        Ok(path)
    }
}

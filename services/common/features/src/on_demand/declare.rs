//! The `on_demand` block of a view: YAML to checked expressions.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::{By, Expression, Fitted, OnDemand, Operand, Wanted};
use crate::{
    Error,
    declare::{FEATURES, check_name, wrong},
    views::{Entity, FeatureInfo, Place, ViewInfo},
};

const BOUNDS: usize = 64;
/// How a request value is named in a view file.
const REQUEST: &str = "request.";

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OperandDeclaration {
    Number(f64),
    Name(String),
    Text { text: String },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Declaration {
    pub name: String,
    difference: Option<(OperandDeclaration, OperandDeclaration)>,
    product: Option<(OperandDeclaration, OperandDeclaration)>,
    ratio: Option<(OperandDeclaration, OperandDeclaration)>,
    equals: Option<(OperandDeclaration, OperandDeclaration)>,
    among: Option<(OperandDeclaration, String)>,
    hours_since: Option<String>,
    bucket: Option<OperandDeclaration>,
    log: Option<OperandDeclaration>,
    zscore: Option<OperandDeclaration>,
    quantile: Option<OperandDeclaration>,
    /// Of `bucket`.
    bounds: Option<Vec<f64>>,
    #[serde(default)]
    pub description: String,
}

pub(crate) type Computed = ([Vec<OnDemand>; Entity::ALL.len()], BTreeMap<String, Wanted>);

/// The on-demand features of all views (declared, in the order of the views), which they are told of, and what request values these take.
///
/// # Errors
/// What is wrong, with its place in the file.
pub(crate) fn computed<'a>(
    declared: impl Iterator<Item = &'a [Declaration]>,
    views: &mut [ViewInfo],
    statistics: &BTreeMap<String, Fitted>,
) -> Result<Computed, Error> {
    let places: HashMap<(Entity, String), Place> = views
        .iter()
        .flat_map(|view| view.features.iter().map(move |feature| (view, feature)))
        .map(|(view, feature)| ((view.entity, format!("{}.{}", view.name, feature.name)), feature.place))
        .collect();
    let mut wanted = BTreeMap::new();
    let mut computed: [Vec<OnDemand>; Entity::ALL.len()] = Default::default();
    for (declared, info) in declared.zip(views) {
        let entity = info.entity;
        let place = |name: &str| places.get(&(entity, name.to_owned())).copied();
        for declaration in declared {
            let name = format!("{}.{}", info.name, declaration.name);
            let at = format!("views.{name}");
            check_name(&at, &declaration.name)?;
            if info.features.iter().any(|other| other.name == declaration.name) {
                return Err(wrong(&at, "is declared twice"));
            }
            let feature = resolve(&at, name, declaration, &place, &mut wanted, statistics)?;
            let of_entity = &mut computed[entity as usize];
            let description = match declaration.description.as_str() {
                "" => feature.definition(),
                said => said.to_owned(),
            };
            info.features.push(FeatureInfo {
                name: declaration.name.clone(),
                place: Place::OnDemand(of_entity.len()),
                aggregate: feature.kind(),
                window: String::new(),
                description,
                request_values: feature.needs().to_vec(),
            });
            of_entity.push(feature);
            if of_entity.len() > FEATURES {
                return Err(wrong(&at, format!("an entity may have {FEATURES} on-demand features")));
            }
        }
    }
    Ok((computed, wanted))
}

/// Names of an entity's stored features to their places.
type Places<'a> = dyn Fn(&str) -> Option<Place> + 'a;

struct Resolving<'a> {
    at: &'a str,
    places: &'a Places<'a>,
    wanted: &'a mut BTreeMap<String, Wanted>,
    needs: Vec<String>,
}

/// An on-demand feature of a view file. `wanted` collects what request values there are, of all views.
///
/// # Errors
/// What is wrong, with its place in the file.
fn resolve(
    at: &str,
    name: String,
    declaration: &Declaration,
    places: &Places<'_>,
    wanted: &mut BTreeMap<String, Wanted>,
    statistics: &BTreeMap<String, Fitted>,
) -> Result<OnDemand, Error> {
    let Declaration {
        difference,
        product,
        ratio,
        equals,
        among,
        hours_since,
        bucket,
        bounds,
        log,
        zscore,
        quantile,
        ..
    } = declaration;
    let given = [difference, product, ratio, equals].into_iter().filter(|pair| pair.is_some()).count()
        + [bucket, log, zscore, quantile].into_iter().filter(|one| one.is_some()).count()
        + usize::from(among.is_some())
        + usize::from(hours_since.is_some());
    if given != 1 {
        let reason = format!(
            "needs one of difference, product, ratio, equals, among, hours_since, bucket, log, zscore and quantile, has {given} \
             of them"
        );
        return Err(wrong(at, reason));
    }
    if bounds.is_some() && bucket.is_none() {
        return Err(wrong(&format!("{at}.bounds"), "belongs to bucket only"));
    }
    let mut resolving = Resolving { at, places, wanted, needs: Vec::new() };
    let r = &mut resolving;
    let expression = match declaration {
        Declaration { difference: Some((a, b)), .. } => Expression::Difference(r.number(a)?, r.number(b)?),
        Declaration { product: Some((a, b)), .. } => Expression::Product(r.number(a)?, r.number(b)?),
        Declaration { ratio: Some((a, b)), .. } => Expression::Ratio(r.number(a)?, r.number(b)?),
        Declaration { equals: Some((a, b)), .. } => Expression::Equals(r.any(a)?, r.any(b)?),
        Declaration { among: Some((of, list)), .. } => {
            Expression::Among { of: r.any(of)?, place: r.list(list)?, list: list.clone() }
        }
        Declaration { hours_since: Some(name), .. } => {
            let request = name.strip_prefix(REQUEST).ok_or_else(|| {
                wrong(&format!("{at}.hours_since"), format!("must be request.<name>, a moment, is {name:?}"))
            })?;
            Expression::HoursSince(r.request(request, Wanted::Moment)?)
        }
        Declaration { bucket: Some(of), .. } => Expression::Bucket(r.number(of)?, checked(at, bounds.as_deref())?),
        Declaration { log: Some(of), .. } => Expression::Log(r.number(of)?),
        Declaration { zscore: Some(of), .. } => r.placed(of, By::Deviations, statistics)?,
        Declaration { quantile: Some(of), .. } => r.placed(of, By::Share, statistics)?,
        _ => return Err(wrong(at, "says nothing")),
    };
    let needs = resolving.needs;
    Ok(OnDemand { name, expression, needs })
}

fn checked(at: &str, bounds: Option<&[f64]>) -> Result<Vec<f64>, Error> {
    let at = format!("{at}.bounds");
    let bounds = bounds.ok_or_else(|| wrong(&at, "is needed by bucket, for example [10, 50, 100]"))?;
    if bounds.is_empty() || bounds.len() > BOUNDS {
        return Err(wrong(&at, format!("must be 1 to {BOUNDS} numbers, are {}", bounds.len())));
    }
    let ascending = bounds.iter().all(|bound| bound.is_finite()) && bounds.is_sorted_by(|a, b| a < b);
    if ascending { Ok(bounds.to_vec()) } else { Err(wrong(&at, "must ascend")) }
}

impl Resolving<'_> {
    fn request(&mut self, name: &str, wanted: Wanted) -> Result<String, Error> {
        check_name(&format!("{}: request.{name}", self.at), name)?;
        let known = self.wanted.entry(name.to_owned()).or_insert(wanted);
        match (*known, wanted) {
            (Wanted::Any, wanted) => *known = wanted,
            (known, wanted) if wanted != Wanted::Any && wanted != known => {
                return Err(wrong(self.at, format!("request.{name} is a number at one place and a moment at another")));
            }
            _ => {}
        }
        if !self.needs.iter().any(|need| need == name) {
            self.needs.push(name.to_owned());
        }
        Ok(name.to_owned())
    }

    fn feature(&self, name: &str) -> Result<Place, Error> {
        (self.places)(name).ok_or_else(|| {
            let reason = format!(
                "{name:?} is neither request.<name> nor a feature that is kept of this entity, as <view>.<feature>"
            );
            wrong(self.at, reason)
        })
    }

    fn operand(&mut self, operand: &OperandDeclaration, wanted: Wanted) -> Result<Operand, Error> {
        Ok(match operand {
            OperandDeclaration::Number(number) if number.is_finite() => Operand::Number(*number),
            OperandDeclaration::Number(number) => return Err(wrong(self.at, format!("{number} is no number"))),
            OperandDeclaration::Text { text } => Operand::Text(text.clone()),
            OperandDeclaration::Name(name) => match name.strip_prefix(REQUEST) {
                Some(request) => Operand::Request(self.request(request, wanted)?),
                None => match self.feature(name)? {
                    Place::Number(place) => Operand::Feature { place, name: name.clone() },
                    Place::List(_) | Place::OnDemand(_) => {
                        return Err(wrong(self.at, format!("{name} is a list: only among takes one")));
                    }
                },
            },
        })
    }

    fn number(&mut self, operand: &OperandDeclaration) -> Result<Operand, Error> {
        match self.operand(operand, Wanted::Number)? {
            Operand::Text(text) => Err(wrong(self.at, format!("the text {text:?} is no number"))),
            operand => Ok(operand),
        }
    }

    fn placed(
        &mut self,
        of: &OperandDeclaration,
        by: By,
        statistics: &BTreeMap<String, Fitted>,
    ) -> Result<Expression, Error> {
        let of = self.number(of)?;
        if let Operand::Number(number) = of {
            return Err(wrong(self.at, format!("{number} is the same in every row: there is nothing to normalise")));
        }
        let among = statistics.get(&of.to_string()).cloned();
        Ok(Expression::Placed { of, by, among })
    }

    fn any(&mut self, operand: &OperandDeclaration) -> Result<Operand, Error> {
        self.operand(operand, Wanted::Any)
    }

    fn list(&self, name: &str) -> Result<usize, Error> {
        match self.feature(name)? {
            Place::List(place) => Ok(place),
            Place::Number(_) | Place::OnDemand(_) => {
                Err(wrong(self.at, format!("{name} is no list; among takes a top_k")))
            }
        }
    }
}

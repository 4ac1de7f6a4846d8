use std::collections::BTreeMap;

use prost_types::{Value, value::Kind};
use rapport_events::FieldError;
use rapport_policy::Normalise;
use rapport_proto::events::Event;

use super::paths::{Trail, each, put};

/// Makes every declared field a number, also where a client sent text. An empty text is no number
/// and goes.
///
/// # Errors
/// Of kind schema, rule `normalise`: a text that is none.
pub(super) fn declared(event: &mut Event, rules: &Normalise) -> Result<(), FieldError> {
    let mut wrong = None;
    for path in &rules.numbers {
        each(event, path, |fields, name, trail| match fields.get_mut(name).and_then(|value| value.kind.as_mut()) {
            Some(Kind::StringValue(text)) if text.trim().is_empty() => {
                fields.remove(name);
            }
            Some(Kind::ListValue(list)) => {
                for kind in list.values.iter_mut().filter_map(|value| value.kind.as_mut()) {
                    wrong = wrong.take().or(as_number(kind).map(|text| is_none(name, trail, text)));
                }
            }
            Some(kind) => wrong = wrong.take().or(as_number(kind).map(|text| is_none(name, trail, text))),
            None => {}
        });
    }
    wrong.map_or(Ok(()), Err)
}

/// Makes a text a number; the text when it is none.
fn as_number(kind: &mut Kind) -> Option<&str> {
    if let Kind::StringValue(text) = kind
        && let Some(number) = number(text)
    {
        *kind = Kind::NumberValue(number);
    }
    match kind {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

fn is_none(name: &str, trail: &Trail<'_>, text: &str) -> FieldError {
    let reason = format!("the policy says it is a number like 12.5; {text:?} is none");
    FieldError::schema(format!("{trail}.{name}"), reason).by_rule("normalise")
}

/// Puts every declared quantity into its unit. With a target of its own, the original stays. What is
/// no number stays as it is.
pub(super) fn units(event: &mut Event, rules: &Normalise) {
    for unit in &rules.units {
        let into = unit.into.as_deref().unwrap_or(&unit.field);
        convert(event, &unit.field, into, unit.into.is_some(), |amount| rounded(amount * unit.multiply));
    }
}

/// Converts the number at `from` and puts it at `into`; both are paths, or `value`. A target that is
/// there already is the client's own and stays. What was moved stays too when `keep`.
pub(super) fn convert(event: &mut Event, from: &str, into: &str, keep: bool, change: impl Fn(f64) -> f64) {
    // The same steps up to the last: each holder converts its own, so `*` finds its neighbour.
    let beside = match (from.rsplit_once('.'), into.rsplit_once('.')) {
        (Some((a, _)), Some((b, last))) if a == b => Some(last),
        _ => None,
    };
    if let Some(target) = beside {
        each(event, from, |fields, name, _| {
            let Some(amount) = fields.get(name).and_then(amount) else { return };
            if name == target {
                set(fields, name, change(amount));
                return;
            }
            if !keep {
                fields.remove(name);
            }
            if !fields.contains_key(target) {
                set(fields, target, change(amount));
            }
        });
        return;
    }
    let mut taken = None;
    if from == "value" {
        taken = if keep { event.value } else { event.value.take() };
    } else {
        each(event, from, |fields, name, _| {
            taken = fields.get(name).and_then(amount);
            if taken.is_some() && !keep {
                fields.remove(name);
            }
        });
    }
    let Some(amount) = taken.map(change) else { return };
    if into == "value" {
        event.value = event.value.or(Some(amount));
    } else if let Some((top, rest)) = into.split_once('.') {
        let object = match top {
            "properties" => &mut event.properties,
            "traits" => &mut event.traits,
            _ => return,
        };
        let object = object.get_or_insert_default();
        if !holds(object, rest) {
            put(object, rest, amount);
        }
    }
}

fn holds(object: &prost_types::Struct, path: &str) -> bool {
    match path.split_once('.') {
        None => object.fields.contains_key(path),
        Some((step, rest)) => match object.fields.get(step).and_then(|value| value.kind.as_ref()) {
            Some(Kind::StructValue(inner)) => holds(inner, rest),
            _ => false,
        },
    }
}

fn set(fields: &mut BTreeMap<String, Value>, name: &str, number: f64) {
    fields.insert(name.to_owned(), Value { kind: Some(Kind::NumberValue(number)) });
}

/// A number, or a text that is one.
fn amount(value: &Value) -> Option<f64> {
    match value.kind.as_ref()? {
        Kind::NumberValue(number) => Some(*number),
        Kind::StringValue(text) => number(text),
        _ => None,
    }
}

/// Twelve significant digits, so that 0.1 + 0.2 of a conversion is 0.3.
pub(super) fn rounded(number: f64) -> f64 {
    format!("{number:.11e}").parse().unwrap_or(number)
}

/// A number as people and spreadsheets write it: `1299`, `-12.5`, `1e3`, `1,299.00`, `1.299,00`,
/// `1 299,00`, full-width digits. A single comma or point before exactly three digits is ambiguous
/// (`1,299`): a comma then groups, a point is decimal, as JSON writes them.
pub(super) fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return number.is_finite().then_some(number);
    }
    if text.len() > 64 {
        return None;
    }
    let plain: String = text
        .chars()
        .map(|c| match c {
            '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
            '\u{2212}' => '-',
            // No-break spaces and apostrophes group thousands.
            '\u{a0}' | '\u{202f}' | '\u{3000}' | '\'' => ' ',
            c => c,
        })
        .collect();
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let (whole, fraction) = match (digits.rfind(','), digits.rfind('.')) {
        (Some(comma), Some(point)) if comma > point => (&digits[..comma], &digits[comma + 1..]),
        (_, Some(point)) if digits.matches('.').count() == 1 => (&digits[..point], &digits[point + 1..]),
        (Some(comma), None) if digits.matches(',').count() == 1 && digits.len() - comma != 4 => {
            (&digits[..comma], &digits[comma + 1..])
        }
        _ => (digits, ""),
    };
    let whole = ungrouped(whole)?;
    let fine = fraction.bytes().all(|b| b.is_ascii_digit()) && !(whole.is_empty() && fraction.is_empty());
    if !fine {
        return None;
    }
    format!("{whole}.{fraction}0").parse::<f64>().ok().filter(|n| n.is_finite()).map(|n| sign * n)
}

/// Digits without the marks between groups of three; `None` when the groups are not of three.
fn ungrouped(whole: &str) -> Option<String> {
    let mark = whole.chars().find(|c| !c.is_ascii_digit());
    let Some(mark) = mark else { return Some(whole.to_owned()) };
    if !matches!(mark, ',' | '.' | ' ') {
        return None;
    }
    let mut groups = whole.split(mark);
    let head = groups.next()?;
    let fine = |group: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&group.len()) && group.bytes().all(|b| b.is_ascii_digit())
    };
    let mut digits = fine(head, 1..=3).then(|| head.to_owned())?;
    for group in groups {
        if !fine(group, 3..=3) {
            return None;
        }
        digits.push_str(group);
    }
    Some(digits)
}

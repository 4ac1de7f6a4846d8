//! Paths into a body, or into the element of it that an event is made for.

use std::fmt;

use serde_json::Value as Json;

/// The most steps that a path may have.
const MAX_STEPS: usize = 32;

/// What paths lead into.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    pub body: &'a Json,
    pub each: Option<&'a Json>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    /// From the element instead of the body.
    pub of_each: bool,
    steps: Vec<Step>,
    /// As it was written.
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Element(usize),
    /// Of a JSON pointer: whatever stands there decides which it is.
    Either(String),
}

impl Path {
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("{text:?} {what}; a path is like $.customer.id, $each.sku, $[\"a.b\"] or /customer/id")
        };
        let (of_each, steps) = if let Some(pointer) = text.strip_prefix('/') {
            (false, pointer.split('/').map(|name| Step::Either(name.replace("~1", "/").replace("~0", "~"))).collect())
        } else if let Some(rest) = text.strip_prefix('$') {
            let each = rest.strip_prefix("each").filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
            (each.is_some(), steps(each.unwrap_or(rest)).map_err(wrong)?)
        } else {
            return Err(wrong("is no path"));
        };
        if steps.len() > MAX_STEPS {
            return Err(wrong(&format!("has more than {MAX_STEPS} steps")));
        }
        Ok(Self { of_each, steps, text: text.to_owned() })
    }

    pub fn find<'a>(&self, scope: &Scope<'a>) -> Option<&'a Json> {
        let start = if self.of_each { scope.each? } else { scope.body };
        self.steps.iter().try_fold(start, |json, step| match (step, json) {
            (Step::Field(name) | Step::Either(name), Json::Object(map)) => map.get(name),
            (Step::Element(n), Json::Array(items)) => items.get(*n),
            (Step::Either(n), Json::Array(items)) => items.get(n.parse::<usize>().ok()?),
            _ => None,
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `.name`, `[0]` and `["name"]`, one after another.
fn steps(mut rest: &str) -> Result<Vec<Step>, &'static str> {
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, next) = after.split_at(end);
            if name.is_empty() {
                return Err("has a '.' without a name");
            }
            steps.push(Step::Field(name.to_owned()));
            rest = next;
        } else if let Some(after) = rest.strip_prefix('[') {
            let (step, next) = bracket(after).ok_or("has brackets that hold neither a number nor a quoted name")?;
            steps.push(step);
            rest = next;
        } else {
            return Err("has something else than '.' or '[' after its root");
        }
    }
    Ok(steps)
}

fn bracket(text: &str) -> Option<(Step, &str)> {
    for quote in ['"', '\''] {
        if let Some(after) = text.strip_prefix(quote) {
            let (name, next) = after.split_once(quote)?;
            return Some((Step::Field(name.to_owned()), next.strip_prefix(']')?));
        }
    }
    let (number, next) = text.split_once(']')?;
    Some((Step::Element(number.parse().ok()?), next))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn found(path: &str) -> Json {
        let body =
            json!({"customer": {"id": 7}, "Customer ID": "c", "a.b": 1, "each": "e", "lines": [{"x": 1}, {"x": 2}]});
        let each = json!({"sku": "s"});
        Path::parse(path).unwrap().find(&Scope { body: &body, each: Some(&each) }).cloned().unwrap_or_default()
    }

    #[test]
    fn a_path_leads_through_objects_lists_and_columns_with_spaces() {
        assert_eq!(found("$.customer.id"), 7);
        assert_eq!(found("/customer/id"), 7);
        assert_eq!(found("$.Customer ID"), "c");
        assert_eq!(found("$[\"a.b\"]"), 1);
        assert_eq!(found("$['Customer ID']"), "c");
        assert_eq!((found("$.lines[1].x"), found("/lines/1/x")), (json!(2), json!(2)));
        assert_eq!((found("$each.sku"), found("$.each")), (json!("s"), json!("e")));
        assert_eq!(
            (found("$.nobody.id"), found("$.lines[9]"), found("$.customer[0]")),
            (Json::Null, Json::Null, Json::Null)
        );
        assert_eq!(found("$each"), json!({"sku": "s"}));
    }

    #[test]
    fn what_is_no_path_is_told() {
        let reason = |path: &str| Path::parse(path).unwrap_err();
        assert!(reason("customer.id").contains("is no path; a path is like $.customer.id"));
        assert!(reason("$.a..b").contains("has a '.' without a name"));
        assert!(reason("$.a[x]").contains("neither a number nor a quoted name"));
        assert!(reason("$customer").contains("something else than '.' or '['"));
        assert!(reason(&"/a".repeat(33)).contains("more than 32 steps"));
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "[/$][a-z.\\[\\]\"'0-9~/$ ]{0,30}") {
            match Path::parse(&path) {
                Ok(parsed) => prop_assert_eq!(parsed.to_string(), path),
                Err(reason) => prop_assert!(reason.contains("a path is like")),
            }
        }
    }
}

use std::{borrow::Cow, collections::BTreeMap};

use prost_types::{Value, value::Kind};
use rapport_policy::{Normalise, Urls};
use rapport_proto::events::Event;

use super::paths::each;
use crate::enrich::{is_tracking, page_address::PageAddress};

/// One address for one page: no user and password, host and scheme in lower case, and, as the policy
/// says, no fragment and no parameters that only track. The rest stays as it was written. For after
/// the campaign was read.
pub fn addresses(event: &mut Event, rules: &Normalise) {
    let rules = &rules.urls;
    if let Some(properties) = &mut event.properties {
        // A page event has its page's address in its properties, others in their context.
        page(&mut properties.fields, rules);
        let context = inner(&mut properties.fields, "context");
        if let Some(fields) = context.and_then(|context| inner(context, "page")) {
            page(fields, rules);
        }
    }
    for path in &rules.fields {
        each(event, path, |fields, name, _| respell(fields, name, |text| spelled(text, rules)));
    }
}

fn page(fields: &mut BTreeMap<String, Value>, rules: &Urls) {
    respell(fields, "url", |text| spelled(text, rules));
    respell(fields, "referrer", |text| spelled(text, rules));
    // A shop's search events have words in `search`, not a query.
    respell(fields, "search", |text| {
        let kept = kept(text.strip_prefix('?')?, rules)?;
        Some(if kept.is_empty() { kept } else { format!("?{kept}") })
    });
}

fn inner<'v>(fields: &'v mut BTreeMap<String, Value>, name: &str) -> Option<&'v mut BTreeMap<String, Value>> {
    match &mut fields.get_mut(name)?.kind {
        Some(Kind::StructValue(inner)) => Some(&mut inner.fields),
        _ => None,
    }
}

/// Replaces a text where `change` gives another.
fn respell(fields: &mut BTreeMap<String, Value>, name: &str, change: impl Fn(&str) -> Option<String>) {
    if let Some(Kind::StringValue(text)) = fields.get_mut(name).and_then(|value| value.kind.as_mut())
        && let Some(changed) = change(text)
    {
        *text = changed;
    }
}

/// `None` when there is nothing to do, and for what is no address.
fn spelled(text: &str, rules: &Urls) -> Option<String> {
    let address = PageAddress::parse(text)?;
    let route = address.fragment.starts_with(['/', '!']);
    let fragment = if rules.drop_fragment && !route { "" } else { address.fragment };
    let query = match kept(address.query, rules) {
        Some(kept) => Cow::Owned(kept),
        None => Cow::Borrowed(address.query),
    };
    let upper = |text: &str| text.bytes().any(|b| b.is_ascii_uppercase());
    let same = query == address.query
        && fragment.len() == address.fragment.len()
        && address.userinfo.is_empty()
        && !upper(address.host)
        && !upper(address.scheme);
    if same {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    out.push_str(&address.scheme.to_ascii_lowercase());
    out.push_str("://");
    out.push_str(&address.host.to_ascii_lowercase());
    out.push_str(address.port);
    out.push_str(address.path);
    for (mark, part) in [("?", query.as_ref()), ("#", fragment)] {
        if !part.is_empty() {
            out.push_str(mark);
            out.push_str(part);
        }
    }
    Some(out)
}

/// The query without parameters that go; `None` when all stay.
fn kept(query: &str, rules: &Urls) -> Option<String> {
    let goes = |parameter: &str| {
        let name = parameter.split('=').next().unwrap_or(parameter);
        (rules.drop_tracking && is_tracking(name)) || rules.drop_parameters.iter().any(|drop| drop == name)
    };
    if query.is_empty() || !query.split('&').any(goes) {
        return None;
    }
    Some(query.split('&').filter(|parameter| !goes(parameter)).collect::<Vec<_>>().join("&"))
}

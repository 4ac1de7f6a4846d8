use std::{borrow::Cow, convert::Infallible};

use prost_types::value::Kind;
use rapport_policy::{Normalise, Urls};
use rapport_proto::events::Event;

use super::paths::{each_holder, root};
use crate::enrich::{is_tracking, page_address::PageAddress};

/// Where clients put addresses of pages.
const FIELDS: &[&str] = &[
    "properties.context.page.url",
    "properties.context.page.referrer",
    "properties.url",
    "properties.referrer",
];
/// Where they put a query by itself.
const QUERIES: &[&str] = &["properties.context.page.search", "properties.search"];

/// One address for one page: no user and password, host and scheme in lower case, and, as the policy
/// says, no fragment and no parameters that only track. The rest stays as it was written. For after
/// the campaign was read.
pub fn addresses(event: &mut Event, rules: &Normalise) {
    if event.properties.is_none() && rules.urls.fields.is_empty() {
        return;
    }
    let own = rules.urls.fields.iter().map(String::as_str);
    for path in FIELDS.iter().copied().chain(own) {
        at(event, path, |text| spelled(text, &rules.urls));
    }
    if rules.urls.drop_tracking || !rules.urls.drop_parameters.is_empty() {
        for path in QUERIES {
            at(event, path, |text| {
                // A shop's search events have words in `search`, not a query.
                let query = text.strip_prefix('?')?;
                let kept = kept(query, &rules.urls)?;
                Some(if kept.is_empty() { kept } else { format!("?{kept}") })
            });
        }
    }
}

/// Replaces the text at a path where `change` gives another.
fn at(event: &mut Event, path: &str, change: impl Fn(&str) -> Option<String>) {
    let Some((object, rest)) = root(event, path) else { return };
    let done: Result<(), Infallible> = each_holder(&mut object.fields, rest, "", &mut |fields, name, _| {
        if let Some(Kind::StringValue(text)) = fields.get_mut(name).and_then(|value| value.kind.as_mut())
            && let Some(changed) = change(text)
        {
            *text = changed;
        }
        Ok(())
    });
    done.unwrap_or(());
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

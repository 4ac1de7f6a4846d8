//! What PostHog's properties say of the client, into Segment's context.

use prost_types::value::Kind;

use crate::{context::Context, fields::take, tree::Fields};

/// From PostHog's name to the place in the context; the first of two names for one place counts.
const PLACES: [(&str, &[&str]); 21] = [
    ("$ip", &["ip"]),
    ("$raw_user_agent", &["userAgent"]),
    ("$useragent", &["userAgent"]),
    ("$user_agent", &["userAgent"]),
    ("$current_url", &["page", "url"]),
    ("$title", &["page", "title"]),
    ("$session_id", &["sessionId"]),
    ("$lib", &["library", "name"]),
    ("$lib_version", &["library", "version"]),
    ("$timezone", &["timezone"]),
    ("$browser_language", &["locale"]),
    ("$locale", &["locale"]),
    ("$screen_width", &["screen", "width"]),
    ("$screen_height", &["screen", "height"]),
    ("$app_name", &["app", "name"]),
    ("$app_version", &["app", "version"]),
    ("utm_source", &["campaign", "source"]),
    ("utm_medium", &["campaign", "medium"]),
    ("utm_campaign", &["campaign", "name"]),
    ("utm_term", &["campaign", "term"]),
    ("utm_content", &["campaign", "content"]),
];

/// Moves them: what stood in two places would have to be protected in two.
pub(super) fn into_context(properties: &mut Fields) {
    let mut context = Context::default();
    // PostHog's word for "no referrer"; it is no address.
    let referrer = take(properties, "$referrer")
        .filter(|value| !matches!(&value.kind, Some(Kind::StringValue(text)) if text == "$direct"));
    context.put(&["page", "referrer"], referrer);
    context.adopt(properties, &PLACES);
    context.join(properties);
}

/// Whether an SDK runs where the customer is: in a browser or an app.
pub(super) fn is_on_a_device(lib: &str) -> bool {
    matches!(
        lib,
        "web"
            | "js"
            | "posthog-js-lite"
            | "posthog-ios"
            | "posthog-android"
            | "posthog-react-native"
            | "posthog-flutter"
            | "posthog-unity"
    )
}

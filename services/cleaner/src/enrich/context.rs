use std::net::IpAddr;

use prost_types::{Struct, Value, value::Kind};
use rapport_proto::events::Event;

/// What a client said of itself and of its page: Segment's context object in
/// `properties.context`, whatever the door. Reads in place; nothing is copied.
#[derive(Debug, Clone, Copy)]
pub struct Context<'e> {
    properties: Option<&'e Struct>,
    context: Option<&'e Struct>,
}

impl<'e> Context<'e> {
    pub fn of(event: &'e Event) -> Self {
        let properties = event.properties.as_ref();
        Self { properties, context: properties.and_then(|p| object(p, "context")) }
    }

    /// As the client sent it, cut to what any real one has.
    pub fn user_agent(&self) -> &'e str {
        cut(self.text("userAgent"), USER_AGENT_BYTES)
    }

    pub fn ip(&self) -> Option<IpAddr> {
        self.text("ip").trim().parse().ok()
    }

    /// Of the page that the event happened on: `context.page.url`, or a page event's own `url`.
    pub fn page_url(&self) -> &'e str {
        self.of_page("url")
    }

    /// What led to the page: `context.page.referrer`, or a page event's own `referrer`.
    pub fn page_referrer(&self) -> &'e str {
        self.of_page("referrer")
    }

    /// The client's own word for the visit.
    pub fn session_id(&self) -> &'e str {
        cut(self.text("sessionId").trim(), rapport_events::limits::ID_BYTES)
    }

    /// Whether the client says itself that it is a machine.
    pub fn says_bot(&self) -> bool {
        match self.context.and_then(|c| c.fields.get("bot")).and_then(|v| v.kind.as_ref()) {
            Some(Kind::BoolValue(says)) => *says,
            Some(Kind::StringValue(text)) => text.eq_ignore_ascii_case("true"),
            _ => false,
        }
    }

    pub fn campaign(&self) -> Option<&'e Struct> {
        self.context.and_then(|c| object(c, "campaign"))
    }

    fn text(&self, name: &str) -> &'e str {
        self.context.and_then(|c| c.fields.get(name)).map_or("", text)
    }

    fn of_page(&self, name: &str) -> &'e str {
        let page = self.context.and_then(|c| object(c, "page")).and_then(|p| p.fields.get(name)).map_or("", text);
        if !page.is_empty() {
            return page;
        }
        self.properties.and_then(|p| p.fields.get(name)).map_or("", text)
    }
}

/// Longer ones are made up; browsers stay below 300.
const USER_AGENT_BYTES: usize = 512;

fn object<'e>(of: &'e Struct, name: &str) -> Option<&'e Struct> {
    match &of.fields.get(name)?.kind {
        Some(Kind::StructValue(inner)) => Some(inner),
        _ => None,
    }
}

/// The text of a value, empty when it is none.
pub(super) fn text(value: &Value) -> &str {
    match &value.kind {
        Some(Kind::StringValue(text)) => text,
        _ => "",
    }
}

/// At most `bytes` of it, ending between two characters.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes { text } else { &text[..text.floor_char_boundary(bytes)] }
}

#[cfg(test)]
mod tests {
    use rapport_events::json::to_struct;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_events_own_url_stands_in_where_the_context_has_none() {
        let of = |properties| Event { properties: Some(to_struct("p", properties).unwrap()), ..Event::default() };
        let page = of(json!({"url": "https://a.example/", "referrer": "https://b.example/"}));
        assert_eq!(Context::of(&page).page_url(), "https://a.example/");
        let both = of(json!({"url": "/x", "context": {"page": {"url": "https://a.example/y"}}}));
        assert_eq!(Context::of(&both).page_url(), "https://a.example/y");
    }

    #[test]
    fn values_of_the_wrong_kind_are_as_good_as_absent() {
        let properties =
            json!({"context": {"ip": 7, "userAgent": ["x"], "page": "home", "bot": "TRUE", "sessionId": null}});
        let event = Event { properties: Some(to_struct("p", properties).unwrap()), ..Event::default() };
        let context = Context::of(&event);
        assert_eq!((context.ip(), context.user_agent(), context.page_url(), context.session_id()), (None, "", "", ""));
        assert!(context.says_bot() && context.campaign().is_none());
        assert!(!Context::of(&Event::default()).says_bot());
    }
}

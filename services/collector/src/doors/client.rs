//! Who is at the other end of a call: an address and a user agent, for the events of browsers and
//! phones that come without. Pure.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, header};
use ipnet::IpNet;
use prost::Message as _;
use prost_types::{Struct, Value, value::Kind};
use rapport_events::limits;
use rapport_policy::{ClientIp, Collect, UserAgent};
use rapport_proto::events::Event;

/// Longer user agents are not real ones.
const USER_AGENT_BYTES: usize = 512;
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The device that an event comes from, as the call shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    pub ip: Option<IpAddr>,
    pub user_agent: Option<String>,
}

impl Client {
    /// What a call shows, as far as the tenant's policy lets it be kept.
    pub fn of(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &[IpNet], collect: Collect) -> Self {
        let ip = match collect.client_ip {
            ClientIp::Drop => None,
            ClientIp::Keep => peer.map(|peer| address(peer, headers, trusted)),
            ClientIp::Truncate => peer.map(|peer| network(address(peer, headers, trusted))),
        };
        let user_agent = match collect.user_agent {
            UserAgent::Drop => None,
            UserAgent::Keep => user_agent(headers).map(str::to_owned),
        };
        Self { ip, user_agent }
    }

    /// Writes it into `properties.context` of an event, where the event says nothing itself and has
    /// room for it.
    pub fn describe(&self, event: &mut Event) {
        let ip = self.ip.map(|ip| ("ip", ip.to_string()));
        let user_agent = self.user_agent.clone().map(|agent| ("userAgent", agent));
        for (name, text) in ip.into_iter().chain(user_agent) {
            // What the names and the lengths of two messages take, and some.
            let needs = text.len() + 64;
            if event.encoded_len() + needs > limits::EVENT_BYTES {
                continue;
            }
            let properties = event.properties.get_or_insert_default();
            let context = properties
                .fields
                .entry("context".into())
                .or_insert_with(|| Value { kind: Some(Kind::StructValue(Struct::default())) });
            if let Some(Kind::StructValue(context)) = &mut context.kind {
                context.fields.entry(name.into()).or_insert_with(|| Value { kind: Some(Kind::StringValue(text)) });
            }
        }
    }
}

/// The User-Agent, if it is a usable one.
pub fn user_agent(headers: &HeaderMap) -> Option<&str> {
    let agent = headers.get(header::USER_AGENT)?.to_str().ok()?.trim();
    (!agent.is_empty() && agent.len() <= USER_AGENT_BYTES).then_some(agent)
}

/// Where a call comes from: the peer, or, when that is a proxy of ours, the last address in
/// `X-Forwarded-For` that is none. What stands left of that was written by the caller, who may write
/// anything.
pub fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let ours = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
    let mut last = peer.to_canonical();
    if !ours(&last) {
        return last;
    }
    let lines: Vec<&str> = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let Some(ip) = hop_address(hop.trim()) else { return last };
        last = ip.to_canonical();
        if !ours(&last) {
            return last;
        }
    }
    last
}

/// An address, which some proxies write with a port.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(ip, _)| ip);
    hop.parse().ok().or_else(|| bare?.parse().ok()).or_else(|| hop.rsplit_once(':')?.0.parse().ok())
}

/// The network of an address: /24 of an IPv4 one, /48 of an IPv6 one.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & (u32::MAX << 8)).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & (u128::MAX << 80)).into()),
    }
}

/// Whether a browser called: it sends `Origin` with every call to another host, or looks like one.
pub fn is_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || user_agent(headers).is_some_and(|agent| agent.starts_with("Mozilla/"))
}

/// The text of a header.
pub fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(HeaderValue::as_bytes).and_then(|value| std::str::from_utf8(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rapport_events::json::{from_struct, to_struct};
    use serde_json::json;

    use super::*;

    fn headers(forwarded: &[&str]) -> HeaderMap {
        forwarded.iter().map(|value| (header::HeaderName::from_static(FORWARDED_FOR), value.parse().unwrap())).collect()
    }

    fn from(peer: &str, forwarded: &[&str]) -> String {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        address(peer.parse().unwrap(), &headers(forwarded), &trusted).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_may_say_whom_it_speaks_for() {
        assert_eq!(from("203.0.113.7", &["198.51.100.1"]), "203.0.113.7", "a stranger may write anything");
        assert_eq!(from("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(from("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.2.0.1"]), "198.51.100.1", "the caller wrote 1.1.1.1");
        assert_eq!(from("10.0.0.1", &["1.1.1.1", "198.51.100.1"]), "198.51.100.1", "several headers are one list");
        assert_eq!(from("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &["unknown"]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &["198.51.100.1:4711"]), "198.51.100.1");
        assert_eq!(from("fd00::1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(from("::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
    }

    fn client(collect: Collect) -> Client {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, "Mozilla/5.0".parse().unwrap());
        Client::of(Some("203.0.113.77".parse().unwrap()), &headers, &[], collect)
    }

    #[test]
    fn what_is_kept_of_a_client_is_what_the_policy_allows() {
        let by_default = client(Collect::default());
        assert_eq!(by_default.ip.unwrap().to_string(), "203.0.113.0");
        assert_eq!(by_default.user_agent.as_deref(), Some("Mozilla/5.0"));
        let nothing = client(Collect { client_ip: ClientIp::Drop, user_agent: UserAgent::Drop });
        assert_eq!(nothing, Client::default());
        let all = client(Collect { client_ip: ClientIp::Keep, ..Collect::default() });
        assert_eq!(all.ip.unwrap().to_string(), "203.0.113.77");
        assert_eq!(network("2001:db8:1:2:3::4".parse().unwrap()).to_string(), "2001:db8:1::");
    }

    #[test]
    fn what_an_event_says_of_itself_stands() {
        let said = json!({"context": {"ip": "192.0.2.1", "locale": "de"}, "price": 3.0});
        let mut event = Event { properties: Some(to_struct("properties", said).unwrap()), ..Event::default() };
        client(Collect::default()).describe(&mut event);
        let context = json!({"ip": "192.0.2.1", "locale": "de", "userAgent": "Mozilla/5.0"});
        assert_eq!(from_struct(&event.properties.unwrap()), json!({"context": context, "price": 3.0}));
        let mut bare = Event::default();
        client(Collect::default()).describe(&mut bare);
        let context = json!({"ip": "203.0.113.0", "userAgent": "Mozilla/5.0"});
        assert_eq!(from_struct(&bare.properties.unwrap()), json!({"context": context}));
    }

    proptest! {
        #[test]
        fn no_event_is_refused_for_what_was_added_to_it(text in "x{32500,32768}", agent in "[a-z]{1,512}") {
            let properties = to_struct("properties", json!({ "text": text })).unwrap();
            let mut event = Event { properties: Some(properties), ..Event::default() };
            prop_assume!(event.encoded_len() <= limits::EVENT_BYTES);
            Client { ip: "2001:db8::ffff:1".parse().ok(), user_agent: Some(agent) }.describe(&mut event);
            prop_assert!(event.encoded_len() <= limits::EVENT_BYTES);
        }

        #[test]
        fn no_header_breaks_it(forwarded in "[ -~]{0,60}") {
            let trusted = ["0.0.0.0/0".parse().unwrap()];
            address("10.0.0.1".parse().unwrap(), &headers(&[&forwarded]), &trusted);
        }
    }
}

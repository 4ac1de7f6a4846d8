use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Found, Kind, is_word};

/// A dotted address of version 4 that begins at `start`. Not part of a longer number, of a version
/// (`v1.2.3.4`, `Chrome/1.2.3.4`, `version 1.2.3.4`) or of a name (`lib-1.2.3.4`).
pub(super) fn version_4(text: &str, start: usize) -> Option<Found> {
    let bytes = text.as_bytes();
    let length = bytes[start..].iter().take(16).take_while(|b| b.is_ascii_digit() || **b == b'.').count();
    let dotted = text[start..start + length].trim_end_matches('.');
    let address: Ipv4Addr = dotted.parse().ok()?;
    let end = start + dotted.len();
    let after = (bytes.get(end).copied(), bytes.get(end + 1).copied());
    let goes_on = match after {
        (Some(b'.'), Some(next)) => is_word(next),
        (Some(b'-'), _) => true,
        (Some(next), _) => is_word(next),
        (None, _) => false,
    };
    let before = &text[..start];
    let part = before.ends_with(['.', '-']) || (before.ends_with('/') && !before.ends_with("//"));
    // 240.0.0.0/4 is reserved and stands in for tokenised addresses; 0.0.0.0/8 is nobody's.
    let real = (1..240).contains(&address.octets()[0]);
    (real && !goes_on && !part && !is_version(before)).then(|| Found {
        range: start..end,
        kind: Kind::Ip,
        canonical: address.to_string(),
    })
}

fn is_version(before: &str) -> bool {
    let word = before.trim_end_matches([' ', ':', '=', '：', '"']);
    ["version", "ver", "release", "build", "firmware", "版本", "版本号"].iter().any(|known| {
        word.len()
            .checked_sub(known.len())
            .and_then(|at| word.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(known))
    })
}

/// An address of version 6 around the hexadecimal word at `start..end`, which a colon follows or
/// stands before. A time (`12:30:45`) and a path of a program (`a::b`) are none.
pub(super) fn version_6(text: &str, start: usize, not_before: usize) -> Option<Found> {
    let bytes = text.as_bytes();
    let colons = bytes[not_before..start].iter().rev().take(2).take_while(|b| **b == b':').count();
    let start = start - if colons == 2 { 2 } else { 0 };
    if start > not_before && is_word(bytes[start - 1]) {
        return None;
    }
    let is_part = |b: &u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
    let length = bytes[start..].iter().take(46).take_while(|b| is_part(b)).count();
    let written = text[start..start + length].trim_end_matches('.');
    let written = match written.strip_suffix(':') {
        Some(cut) if !cut.ends_with(':') => cut,
        _ => written,
    };
    let end = start + written.len();
    let few = written.len() < 7 || written.bytes().filter(|b| *b == b':').count() < 2;
    if few || !written.bytes().any(|b| b.is_ascii_digit()) || bytes.get(end).is_some_and(|next| is_word(*next)) {
        return None;
    }
    let address: Ipv6Addr = written.parse().ok()?;
    // 100::/64 is the discard prefix (RFC 6666), and stands in for tokenised addresses.
    let stand_in = address.segments()[..4] == [0x100, 0, 0, 0];
    (!stand_in).then(|| Found { range: start..end, kind: Kind::Ip, canonical: address.to_canonical().to_string() })
}

/// The network that stays of an address: /24, or /48 for version 6 (what Google Analytics and
/// Snowplow's defaults cut to, and the regulators' advice).
pub(in crate::privacy) fn network(address: &str) -> Option<String> {
    Some(match address.parse::<IpAddr>().ok()?.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Ipv4Addr::new(a, b, c, 0).to_string()
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).to_string()
        }
    })
}

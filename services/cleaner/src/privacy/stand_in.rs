//! What stands in place of a value that was found.

use std::net::{Ipv4Addr, Ipv6Addr};

use rapport_events::{Tenant, pseudonym::Pseudonymiser};
use rapport_policy::Action;

use super::detect::{Found, Kind, TOKEN_DOMAIN, network};

/// Whose data it is, and the key.
#[derive(Clone, Copy)]
pub(super) struct Keyed<'a> {
    pub tenant: &'a Tenant,
    pub key: &'a Pseudonymiser,
}

/// What a dropped part of a text leaves.
const REMOVED: &str = "[removed]";
const MASK: &str = "****";

impl Keyed<'_> {
    /// In place of a match; `None` when it stays.
    pub(super) fn found(self, found: &Found, original: &str, action: Action) -> Option<String> {
        Some(match action {
            Action::Keep => return None,
            Action::Hash => self.hash(&found.canonical),
            Action::Tokenise => self.token(found.kind, &found.canonical),
            Action::Mask if found.kind == Kind::Ip => self.truncated(&found.canonical),
            Action::Mask => masked(original),
            Action::Truncate => self.truncated(&found.canonical),
            Action::Drop => REMOVED.to_owned(),
        })
    }

    /// In place of a whole value that no detector knows; `None` when it stays, or goes altogether.
    pub(super) fn whole(self, text: &str, action: Action) -> Option<String> {
        match action {
            Action::Keep | Action::Drop => None,
            Action::Hash => Some(self.hash(text)),
            Action::Tokenise => Some(self.same_shape(text)),
            Action::Mask => Some(masked(text)),
            Action::Truncate => Some(self.truncated(text)),
        }
    }

    pub(super) fn hash(self, text: &str) -> String {
        self.key.pseudonym(self.tenant, text)
    }

    fn truncated(self, text: &str) -> String {
        network(text.trim()).unwrap_or_else(|| self.hash(text))
    }

    /// A value of the same form from a range that no real one is in, and that no detector takes for
    /// a real one: so a token is never replaced again.
    fn token(self, kind: Kind, canonical: &str) -> String {
        let bytes = self.key.digest(self.tenant, canonical);
        let digits = |count: usize| bytes.iter().cycle().take(count).map(|b| char::from(b'0' + b % 10));
        match kind {
            Kind::Email => format!("{}@{TOKEN_DOMAIN}", self.hash(canonical)),
            // Country code 999 is reserved.
            Kind::Phone => "+999".chars().chain(digits(12)).collect(),
            // No mobile number begins with 10.
            Kind::ChineseMobile => "10".chars().chain(digits(9)).collect(),
            // 00 is no province.
            Kind::ChineseResidentId => "00".chars().chain(digits(16)).collect(),
            // First digit 9: for national use, no card network's (ISO/IEC 7812-1).
            Kind::Card => "9".chars().chain(digits(canonical.len() - 1)).collect(),
            // XX is no country.
            Kind::Iban => "XX".chars().chain(digits(canonical.len() - 2)).collect(),
            Kind::Ip if canonical.contains(':') => {
                let part = |i: usize| u16::from_be_bytes([bytes[i], bytes[i + 1]]);
                Ipv6Addr::new(0x100, 0, 0, 0, part(0), part(2), part(4), part(6)).to_string()
            }
            Kind::Ip => Ipv4Addr::new(240, bytes[0], bytes[1], bytes[2]).to_string(),
        }
    }

    /// As long, with a digit for a digit and a letter for a letter: a short value has few stand-ins
    /// (a digit has ten), so two values may share one.
    fn same_shape(self, text: &str) -> String {
        let mut stream = (0u32..).flat_map(|block| self.key.digest(self.tenant, &format!("{block}/{text}")));
        let mut next = |below: u32| u32::from(stream.next().unwrap_or(0)) % below;
        text.chars()
            .map(|c| match c {
                '0'..='9' => char::from_u32(u32::from('0') + next(10)),
                'a'..='z' => char::from_u32(u32::from('a') + next(26)),
                'A'..='Z' => char::from_u32(u32::from('A') + next(26)),
                c if c.is_alphabetic() => char::from_u32(0x4e00 + next(256) * 64 + next(64)),
                c => Some(c),
            })
            .map(|c| c.unwrap_or('x'))
            .collect()
    }
}

/// `****` and the last four characters of eight or more; an e-mail address keeps its domain.
fn masked(text: &str) -> String {
    if let Some((_, domain)) = text.rsplit_once('@') {
        return format!("{MASK}@{domain}");
    }
    let characters: Vec<char> = text.trim().chars().collect();
    let kept = if characters.len() >= 8 { &characters[characters.len() - 4..] } else { &[] };
    MASK.chars().chain(kept.iter().copied()).collect()
}

//! How a webhook proves that its sender knows the secret: HMAC-SHA256 over the body, or over a time
//! and the body. Pure: the time comes in.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rapport_events::EventTime;
use sha2::Sha256;

use crate::credential::BASE64;

/// Signatures of one call that are looked at, where a header may hold several.
const SIGNATURES: usize = 8;
const SIGNATURE_BYTES: usize = 256;
const TIMESTAMP_BYTES: usize = 64;

/// Why a call is not believed. Says nothing of what would have been right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("{0}: is missing; the hook's sender must sign its calls")]
    Missing(HeaderName),
    #[error("{0}: {1}")]
    Malformed(HeaderName, &'static str),
    #[error("{0}: the signature is wrong; check that the sender and the hook have the same secret")]
    Wrong(HeaderName),
    #[error(
        "{header}: the call was signed {age_s} s ago, at most {window_s} s are allowed; is it sent again, or is a clock wrong?"
    )]
    Old { header: HeaderName, age_s: i64, window_s: i64 },
    #[error("{header}: the call was signed {ahead_s} s in the future; is a clock wrong?")]
    Early { header: HeaderName, ahead_s: i64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Hex,
    Base64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampFormat {
    UnixS,
    UnixMs,
    Rfc3339,
}

/// When a call was signed, as the call says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp {
    /// Where it stands, unless the signature's header holds it.
    pub header: Option<HeaderName>,
    pub format: TimestampFormat,
    /// How far it may be from now.
    pub window: Duration,
}

/// The names of a header's `name=value` pairs (`t=...,v1=...`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs {
    pub signature: String,
    pub timestamp: Option<String>,
}

/// How a hook is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheme {
    pub header: HeaderName,
    pub pairs: Option<Pairs>,
    pub prefix: String,
    pub encoding: Encoding,
    /// What stands before the body in what is signed: the time, and what parts them; `None`: nothing.
    pub before_body: Option<String>,
    pub timestamp: Option<Timestamp>,
}

impl Scheme {
    /// Checks a call against any of the secrets, at a given moment.
    ///
    /// # Errors
    /// The first thing that is missing or wrong.
    pub fn check(
        &self,
        secrets: &[Vec<u8>],
        headers: &HeaderMap,
        body: &[u8],
        now: EventTime,
    ) -> Result<(), SignatureError> {
        let text = self.text(headers, &self.header)?;
        let signatures: Vec<&str> = match &self.pairs {
            None => vec![text],
            Some(pairs) => values(text, &pairs.signature).take(SIGNATURES).collect(),
        };
        let time = self.time(headers, text)?;
        let signed_time = time.as_ref().map_or("", |(text, _)| *text);
        let mut decoded = signatures.iter().filter_map(|signature| self.decoded(signature)).peekable();
        if decoded.peek().is_none() {
            return Err(SignatureError::Malformed(
                self.header.clone(),
                "holds no signature of the form that the hook says",
            ));
        }
        // Every secret is tried with every signature: how long it takes tells nothing.
        let good = decoded.fold(false, |good, signature| {
            secrets.iter().fold(good, |good, secret| good | self.matches(secret, signed_time, body, &signature))
        });
        if !good {
            return Err(SignatureError::Wrong(self.header.clone()));
        }
        match (&self.timestamp, time) {
            (Some(rule), Some((_, at))) => rule.check(rule.header.as_ref().unwrap_or(&self.header), at, now),
            _ => Ok(()),
        }
    }

    fn text<'a>(&self, headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, SignatureError> {
        let value = headers.get(name).ok_or_else(|| SignatureError::Missing(name.clone()))?;
        value.to_str().map(str::trim).map_err(|_| SignatureError::Malformed(name.clone(), "is no text"))
    }

    /// The time as it was signed, and as a time.
    fn time<'a>(
        &self,
        headers: &'a HeaderMap,
        signature: &'a str,
    ) -> Result<Option<(&'a str, EventTime)>, SignatureError> {
        let Some(rule) = &self.timestamp else { return Ok(None) };
        let (name, text) = match (&rule.header, &self.pairs) {
            (Some(name), _) => (name, self.text(headers, name)?),
            (None, pairs) => {
                let key = pairs.as_ref().and_then(|pairs| pairs.timestamp.as_deref()).unwrap_or_default();
                let malformed = || SignatureError::Malformed(self.header.clone(), "holds no time");
                (&self.header, values(signature, key).next().ok_or_else(malformed)?)
            }
        };
        let at = (text.len() <= TIMESTAMP_BYTES).then(|| rule.format.read(text)).flatten();
        let at = at
            .ok_or_else(|| SignatureError::Malformed(name.clone(), "holds no time of the format that the hook says"))?;
        Ok(Some((text, at)))
    }

    fn decoded(&self, signature: &str) -> Option<Vec<u8>> {
        let text = signature.strip_prefix(self.prefix.as_str())?;
        if text.len() > SIGNATURE_BYTES {
            return None;
        }
        match self.encoding {
            Encoding::Hex => hex::decode(text).ok(),
            Encoding::Base64 => BASE64.decode(text).ok(),
        }
    }

    fn matches(&self, secret: &[u8], time: &str, body: &[u8], signature: &[u8]) -> bool {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return false };
        if let Some(between) = &self.before_body {
            mac.update(time.as_bytes());
            mac.update(between.as_bytes());
        }
        mac.update(body);
        // In constant time.
        mac.verify_slice(signature).is_ok()
    }
}

impl Timestamp {
    fn check(&self, header: &HeaderName, at: EventTime, now: EventTime) -> Result<(), SignatureError> {
        let window_s = i64::try_from(self.window.as_secs()).unwrap_or(i64::MAX);
        let age_s = now.as_ms().saturating_sub(at.as_ms()) / 1000;
        if age_s > window_s {
            return Err(SignatureError::Old { header: header.clone(), age_s, window_s });
        }
        if age_s < -window_s {
            return Err(SignatureError::Early { header: header.clone(), ahead_s: -age_s });
        }
        Ok(())
    }
}

impl TimestampFormat {
    fn read(self, text: &str) -> Option<EventTime> {
        match self {
            Self::UnixS => Some(EventTime::from_ms(text.parse::<i64>().ok()?.checked_mul(1000)?)),
            Self::UnixMs => Some(EventTime::from_ms(text.parse().ok()?)),
            Self::Rfc3339 => EventTime::parse_rfc3339(text),
        }
    }
}

/// The values of a name in `name=value,name=value`.
fn values<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    text.split(',').filter_map(move |pair| pair.trim().split_once('=').filter(|(key, _)| *key == name).map(|(_, v)| v))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hooks::file::preset;

    const BODY: &[u8] = br#"{"id": 820982911946154508}"#;
    const NOW_S: i64 = 1_750_000_000;

    fn mac(secret: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().to_vec()
    }

    fn check(name: &str, headers: &[(&str, String)]) -> Result<(), SignatureError> {
        check_at(name, headers, NOW_S)
    }

    fn check_at(name: &str, headers: &[(&str, String)], now_s: i64) -> Result<(), SignatureError> {
        let scheme = preset(name).unwrap();
        let header = |(name, value): &(&str, String)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        let headers: HeaderMap = headers.iter().map(header).collect();
        let secrets = [b"new".to_vec(), b"old".to_vec()];
        scheme.check(&secrets, &headers, BODY, EventTime::from_ms(now_s * 1000))
    }

    #[test]
    fn a_shops_signature_is_right_with_any_live_secret_and_wrong_with_another() {
        let signed = |secret: &[u8]| [("x-shopify-hmac-sha256", BASE64.encode(mac(secret, &[BODY])))];
        assert_eq!(check("shopify", &signed(b"new")), Ok(()));
        assert_eq!(check("shopify", &signed(b"old")), Ok(()), "while both stand there");
        assert!(matches!(check("shopify", &signed(b"guess")), Err(SignatureError::Wrong(_))));
        assert!(matches!(check("shopify", &[]), Err(SignatureError::Missing(_))));
        let half = BASE64.encode(&mac(b"new", &[BODY])[..16]);
        assert!(matches!(check("shopify", &[("x-shopify-hmac-sha256", half)]), Err(SignatureError::Wrong(_))));
    }

    #[test]
    fn a_prefix_must_be_there() {
        let signature = hex::encode(mac(b"new", &[BODY]));
        assert_eq!(check("github", &[("x-hub-signature-256", format!("sha256={signature}"))]), Ok(()));
        let bare = check("github", &[("x-hub-signature-256", signature)]);
        assert!(matches!(bare, Err(SignatureError::Malformed(..))));
    }

    #[test]
    fn a_help_desks_call_is_signed_with_its_time_and_is_worthless_when_that_is_long_ago() {
        let time = "2025-06-15T15:06:40Z"; // NOW_S
        let signed = |time: &str| {
            let signature = BASE64.encode(mac(b"new", &[time.as_bytes(), BODY]));
            [("x-zendesk-webhook-signature", signature), ("x-zendesk-webhook-signature-timestamp", time.to_owned())]
        };
        assert_eq!(check("zendesk", &signed(time)), Ok(()));
        assert_eq!(check_at("zendesk", &signed(time), NOW_S + 300), Ok(()));
        let replayed = check_at("zendesk", &signed(time), NOW_S + 301).unwrap_err();
        assert!(replayed.to_string().contains("signed 301 s ago, at most 300 s"), "{replayed}");
        assert!(matches!(check_at("zendesk", &signed(time), NOW_S - 301), Err(SignatureError::Early { .. })));
        // A new time over an old signature.
        let [signature, _] = signed(time);
        let forged = [signature, ("x-zendesk-webhook-signature-timestamp", "2025-06-15T15:06:41Z".to_owned())];
        assert!(matches!(check("zendesk", &forged), Err(SignatureError::Wrong(_))));
        let [signature, _] = signed(time);
        assert!(matches!(check("zendesk", &[signature]), Err(SignatureError::Missing(_))));
    }

    #[test]
    fn a_header_of_pairs_may_hold_several_signatures() {
        let time = NOW_S.to_string();
        let good = hex::encode(mac(b"old", &[time.as_bytes(), b".", BODY]));
        let other = hex::encode(mac(b"guess", &[time.as_bytes(), b".", BODY]));
        let signed = |value: String| check("stripe", &[("stripe-signature", value)]);
        assert_eq!(signed(format!("t={time},v1={other}, v1={good},v0=x")), Ok(()));
        assert!(matches!(signed(format!("t={time},v1={other}")), Err(SignatureError::Wrong(_))));
        assert!(matches!(signed(format!("v1={good}")), Err(SignatureError::Malformed(..))));
        assert!(matches!(signed(format!("t={},v1={good}", NOW_S + 1)), Err(SignatureError::Wrong(_))));
    }

    proptest! {
        #[test]
        fn no_header_opens_the_door_without_the_secret(value in "[ -~]{0,120}", time in "[ -~]{0,40}") {
            for name in ["shopify", "github", "zendesk", "stripe"] {
                let scheme = preset(name).unwrap();
                let mut headers = vec![(scheme.header.as_str().to_owned(), value.clone())];
                if let Some(header) = scheme.timestamp.and_then(|rule| rule.header) {
                    headers.push((header.as_str().to_owned(), time.clone()));
                }
                let headers: Vec<(&str, String)> = headers.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
                prop_assert!(check(name, &headers).is_err());
            }
        }
    }
}

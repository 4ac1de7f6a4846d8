//! Where a call carries its API key.

use std::borrow::Cow;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use crate::keys::{KEY_BYTES, Unauthenticated};

/// Clients differ in whether they pad.
pub const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The key that a call carries in its headers (HTTP) or metadata (gRPC): `authorization: Bearer`,
/// the user of `authorization: Basic`, or `x-api-key`, in this order. `None` when it has none.
///
/// # Errors
/// There is an `authorization` that is neither.
pub fn credential<'a>(
    header: impl Fn(&'static str) -> Option<&'a [u8]>,
) -> Result<Option<Cow<'a, str>>, Unauthenticated> {
    let Some(authorization) = header("authorization") else {
        let key = header("x-api-key").map(text).transpose()?;
        return Ok(key.map(str::trim).filter(|key| !key.is_empty()).map(Cow::Borrowed));
    };
    let (scheme, value) = text(authorization)?.trim().split_once(' ').ok_or(Unauthenticated::Malformed)?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(Cow::Borrowed(value)).filter(|key| !key.is_empty()));
    }
    if !scheme.eq_ignore_ascii_case("basic") || value.len() > 2 * KEY_BYTES {
        return Err(Unauthenticated::Malformed);
    }
    let pair = BASE64.decode(value).ok().and_then(|pair| String::from_utf8(pair).ok());
    let pair = pair.ok_or(Unauthenticated::Malformed)?;
    let key = pair.split_once(':').map_or(pair.as_str(), |(user, _)| user);
    Ok((!key.is_empty()).then(|| Cow::Owned(key.to_owned())))
}

fn text(bytes: &[u8]) -> Result<&str, Unauthenticated> {
    std::str::from_utf8(bytes).map_err(|_| Unauthenticated::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from(name: &'static str, value: &str) -> Result<Option<String>, Unauthenticated> {
        let value = value.as_bytes().to_vec();
        credential(|asked| (asked == name).then_some(value.as_slice())).map(|key| key.map(Cow::into_owned))
    }

    #[test]
    fn a_key_may_come_as_bearer_basic_or_header() {
        assert_eq!(from("authorization", "Bearer k1"), Ok(Some("k1".into())));
        assert_eq!(from("authorization", "bearer  k1 "), Ok(Some("k1".into())));
        assert_eq!(from("authorization", "Basic azE6"), Ok(Some("k1".into())), "k1:");
        assert_eq!(from("authorization", "Basic azE6cHc="), Ok(Some("k1".into())), "k1:pw, padded");
        assert_eq!(from("authorization", "Basic azE6cHc"), Ok(Some("k1".into())), "and not padded");
        assert_eq!(from("x-api-key", "k1"), Ok(Some("k1".into())));
        assert_eq!(from("x-other", "k1"), Ok(None));
        assert_eq!(from("authorization", "Basic Og=="), Ok(None), "an empty user");
        for bad in ["k1", "Digest x", "Basic ***", "Basic /w=="] {
            assert_eq!(from("authorization", bad), Err(Unauthenticated::Malformed), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(bytes: Vec<u8>, scheme in "(Basic |Bearer |basic|)") {
            let value = [scheme.as_bytes(), &bytes].concat();
            let first = credential(|name| (name == "authorization").then_some(value.as_slice()));
            prop_assert!(first.is_ok() || first == Err(Unauthenticated::Malformed));
            prop_assert!(credential(|name| (name == "x-api-key").then_some(bytes.as_slice())).is_ok()
                || std::str::from_utf8(&bytes).is_err());
        }

        #[test]
        fn any_key_sent_as_basic_is_the_same_key(key in "[^:\u{0}-\u{1f}]{1,64}") {
            let value = format!("Basic {}", BASE64.encode(format!("{key}:")));
            prop_assert_eq!(credential(|_| Some(value.as_bytes())).unwrap().unwrap(), key);
        }
    }
}

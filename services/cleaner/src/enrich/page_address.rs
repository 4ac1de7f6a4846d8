//! The parts of a page's address, found without copying: events carry two of them, and most need
//! nothing done.

/// `scheme://userinfo@host:port/path?query#fragment`, each without its mark. What is missing is
/// empty. Not a validating parser: whatever stands where a host belongs is the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageAddress<'a> {
    pub scheme: &'a str,
    pub userinfo: &'a str,
    pub host: &'a str,
    /// With its colon.
    pub port: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub fragment: &'a str,
}

impl<'a> PageAddress<'a> {
    /// `None` for what is no absolute address (`/cart`, `about:blank`, free text). Apps' own schemes
    /// (`android-app://com.example`) are addresses.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once("://")?;
        if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')) {
            return None;
        }
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (userinfo, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        // The colons of an IPv6 address stand in brackets.
        let port_at = host.rfind(':').filter(|at| host.rfind(']').is_none_or(|bracket| bracket < *at));
        let (host, port) = host.split_at(port_at.unwrap_or(host.len()));
        (!host.is_empty()).then_some(Self { scheme, userinfo, host, port, path, query, fragment })
    }

    /// The query's parameters as they stand, still encoded: name and, with its `=`, value.
    pub fn parameters(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.query.split('&').filter(|p| !p.is_empty()).map(|p| p.split_at(p.find('=').unwrap_or(p.len())))
    }
}

/// Whether `host` is `domain` or below it. Letter case does not count.
pub fn is_within(host: &str, domain: &str) -> bool {
    let Some(at) = host.len().checked_sub(domain.len()) else { return false };
    let (Some(before), Some(end)) = (host.get(..at), host.get(at..)) else { return false };
    end.eq_ignore_ascii_case(domain) && (before.is_empty() || before.ends_with('.'))
}

/// A parameter's value as text: `+` and `%20` are spaces. Bytes that are no UTF-8 become `\u{fffd}`.
pub fn decoded(value: &str) -> String {
    let value = value.strip_prefix('=').unwrap_or(value);
    if !value.contains(['%', '+']) {
        return value.to_owned();
    }
    // One name without a value: a form's marks that are not encoded stand for themselves.
    let one_name = value.replace('=', "%3D").replace('&', "%26");
    url::form_urlencoded::parse(one_name.as_bytes()).map(|(name, _)| name.into_owned()).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_comes_apart() {
        let a = PageAddress::parse("https://ann:pw@Shop.Example:8443/p/1?a=b%20c&d#top").unwrap();
        assert_eq!((a.scheme, a.userinfo, a.host, a.port), ("https", "ann:pw", "Shop.Example", ":8443"));
        assert_eq!((a.path, a.query, a.fragment), ("/p/1", "a=b%20c&d", "top"));
        assert_eq!(a.parameters().collect::<Vec<_>>(), [("a", "=b%20c"), ("d", "")]);
        assert_eq!(PageAddress::parse("http://[2001:db8::1]:80/").unwrap().host, "[2001:db8::1]");
        assert_eq!(PageAddress::parse("http://[2001:db8::1]/").unwrap().port, "");
        assert_eq!(PageAddress::parse("https://a.example?x=1").unwrap().path, "");
        for none in ["", "/cart", "about:blank", "see https://a.example", "https://", "https:///x"] {
            assert_eq!(PageAddress::parse(none), None, "{none}");
        }
    }

    #[test]
    fn a_domain_holds_its_subdomains_and_no_namesakes() {
        assert!(is_within("www.Google.com", "google.com") && is_within("google.com", "google.com"));
        assert!(!is_within("notgoogle.com", "google.com") && !is_within("com", "google.com"));
    }

    #[test]
    fn a_value_is_decoded() {
        assert_eq!(decoded("=blue+shoe%20%E9%9E%8B"), "blue shoe 鞋");
        assert_eq!(decoded("=a=b"), "a=b");
        assert_eq!(decoded(""), "");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}", odd in "[a-z:/?#@\\[\\].]{0,40}", bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            for text in [&text, &odd, &String::from_utf8_lossy(&bytes).into_owned()] {
                let _ = PageAddress::parse(text).map(|a| a.parameters().count());
                let _ = decoded(text);
                let _ = is_within(text, &odd);
            }
        }
    }
}

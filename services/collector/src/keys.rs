//! API keys: who is calling, and so whose data it is. Keys are held as SHA-256 only, so that a
//! core dump or a log never shows one, and a lookup takes the same path for every key.

use std::{borrow::Cow, collections::HashMap, fmt, fs, path::PathBuf};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use rapport_events::Tenant;
use sha2::{Digest, Sha256};

/// Longer ones are not keys; it also bounds the hashing that a stranger can ask for.
pub const KEY_BYTES: usize = 512;
const HASHED: &str = "sha256:";

/// Clients differ in whether they pad.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What `--api-keys` was given. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct KeyList(String);

impl std::str::FromStr for KeyList {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for KeyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyList(..)")
    }
}

/// Why a list of keys cannot be used. Names the entry by its place, never by its text.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("cannot read the API keys in {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("API key {place}: {reason}")]
    Entry { place: String, reason: String },
    #[error(
        "no API keys: give --api-keys \"<key>=<tenant>,...\" or \"@<file>\", or, for development only, \
         --insecure-tenant <tenant>"
    )]
    None,
}

/// Why a caller could not be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    #[error("no API key: send it as \"authorization: Bearer <key>\", as the user of Basic, or as \"x-api-key\"")]
    Missing,
    #[error("authorization: must be \"Bearer <key>\" or \"Basic <base64 of key:>\"")]
    Malformed,
    #[error("the API key is not known")]
    Unknown,
}

/// The keys that open the door, and the tenant behind each.
#[derive(Debug)]
pub struct Keys {
    by_hash: HashMap<[u8; 32], Tenant>,
    /// Development: who a caller without a known key is.
    anyone: Option<Tenant>,
}

impl Keys {
    /// Reads `key=tenant` entries, separated by commas; an entry `@path` stands for the lines of a
    /// file, where blank lines and lines that begin with `#` do not count. `sha256:<hex>=tenant`
    /// gives a key by its hash. The last `=` separates, so that a key may hold one.
    ///
    /// # Errors
    /// A file that cannot be read, an entry that is not of that form, or no key at all.
    pub fn load(list: Option<&KeyList>, anyone: Option<Tenant>) -> Result<Self, KeysError> {
        let mut keys = Self { by_hash: HashMap::new(), anyone };
        let entries = list.map_or("", |list| list.0.as_str()).split(',').map(str::trim);
        for (number, entry) in entries.enumerate().filter(|(_, entry)| !entry.is_empty()) {
            match entry.strip_prefix('@') {
                None => keys.add(entry).map_err(|reason| entry_error(format!("entry {}", number + 1), reason))?,
                Some(path) => keys.add_file(PathBuf::from(path.trim()))?,
            }
        }
        if keys.by_hash.is_empty() && keys.anyone.is_none() {
            return Err(KeysError::None);
        }
        Ok(keys)
    }

    fn add_file(&mut self, path: PathBuf) -> Result<(), KeysError> {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(KeysError::File { path, source }),
        };
        let lines = text.lines().map(str::trim).enumerate();
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            self.add(line).map_err(|reason| entry_error(format!("{}, line {}", path.display(), number + 1), reason))?;
        }
        Ok(())
    }

    fn add(&mut self, entry: &str) -> Result<(), String> {
        let (key, tenant) = entry.rsplit_once('=').ok_or("must be <key>=<tenant> or sha256:<hex>=<tenant>")?;
        let (key, tenant) = (key.trim(), Tenant::parse(tenant.trim()).map_err(|error| error.to_string())?);
        let hash = match key.strip_prefix(HASHED) {
            Some(hash) => {
                let mut bytes = [0; 32];
                hex::decode_to_slice(hash, &mut bytes)
                    .map_err(|_| format!("after {HASHED} there must be 64 hex digits, has {}", hash.len()))?;
                bytes
            }
            None if key.is_empty() || key.len() > KEY_BYTES => {
                return Err(format!("must have 1 to {KEY_BYTES} bytes, has {}", key.len()));
            }
            None => hash_of(key),
        };
        match self.by_hash.insert(hash, tenant.clone()) {
            Some(other) if other != tenant => Err(format!("is already the key of the tenant {other}")),
            _ => Ok(()),
        }
    }

    /// The tenant of a key, or of a caller without one.
    ///
    /// # Errors
    /// No key, or one that is not known.
    pub fn tenant(&self, key: Option<&str>) -> Result<Tenant, Unauthenticated> {
        let known = key.filter(|key| key.len() <= KEY_BYTES).and_then(|key| self.by_hash.get(&hash_of(key)));
        match (known, &self.anyone, key) {
            (Some(tenant), _, _) | (None, Some(tenant), _) => Ok(tenant.clone()),
            (None, None, Some(_)) => Err(Unauthenticated::Unknown),
            (None, None, None) => Err(Unauthenticated::Missing),
        }
    }

    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }
}

fn entry_error(place: String, reason: String) -> KeysError {
    KeysError::Entry { place, reason }
}

fn hash_of(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

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
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn keys(list: &str) -> Result<Keys, KeysError> {
        Keys::load(Some(&KeyList(list.to_owned())), None)
    }

    fn from(name: &'static str, value: &str) -> Result<Option<String>, Unauthenticated> {
        let value = value.as_bytes().to_vec();
        credential(|asked| (asked == name).then_some(value.as_slice())).map(|key| key.map(Cow::into_owned))
    }

    #[test]
    fn a_key_opens_the_door_to_its_own_tenant_only() {
        let keys = keys("one=acme, two==bolt").unwrap();
        assert_eq!(keys.tenant(Some("one")).unwrap().as_str(), "acme");
        assert_eq!(keys.tenant(Some("two=")).unwrap().as_str(), "bolt");
        assert_eq!(keys.tenant(Some("three")), Err(Unauthenticated::Unknown));
        assert_eq!(keys.tenant(None), Err(Unauthenticated::Missing));
    }

    #[test]
    fn a_file_may_hold_keys_and_hashes_of_keys() {
        let mut file = tempfile();
        writeln!(file.1, "# ours\n\nplain=acme\nsha256:{}=bolt", hex::encode(hash_of("secret"))).unwrap();
        let keys = keys(&format!("@{}", file.0.display())).unwrap();
        assert_eq!(keys.tenant(Some("plain")).unwrap().as_str(), "acme");
        assert_eq!(keys.tenant(Some("secret")).unwrap().as_str(), "bolt");
        fs::remove_file(file.0).unwrap();
    }

    fn tempfile() -> (PathBuf, fs::File) {
        let path = std::env::temp_dir().join(format!("rapport-keys-{}", uuid::Uuid::new_v4()));
        let file = fs::File::create(&path).unwrap();
        (path, file)
    }

    #[test]
    fn no_key_at_all_is_refused_unless_insecurity_is_asked_for() {
        assert!(matches!(Keys::load(None, None), Err(KeysError::None)));
        assert!(matches!(keys(" , "), Err(KeysError::None)));
        let open = Keys::load(None, Some(Tenant::parse("demo").unwrap())).unwrap();
        assert_eq!(open.tenant(None).unwrap().as_str(), "demo");
        assert_eq!(open.tenant(Some("whatever")).unwrap().as_str(), "demo");
    }

    #[test]
    fn a_bad_entry_is_named_by_its_place_and_never_shown() {
        for list in ["ok=acme,sEcReT", "ok=acme,sEcReT=Not A Tenant", "ok=acme,sha256:sEcReT=acme", "ok=acme,ok=bolt"] {
            let error = keys(list).unwrap_err().to_string();
            assert!(error.starts_with("API key entry 2: "), "{error}");
            assert!(!error.contains("sEcReT"), "{error}");
        }
        assert!(keys("@/no/such/file").unwrap_err().to_string().contains("/no/such/file"));
        assert!(!format!("{:?}", KeyList("sEcReT=acme".into())).contains("sEcReT"));
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

        #[test]
        fn no_list_of_keys_panics(list in "\\PC{0,200}") {
            prop_assume!(!list.contains('@'));
            prop_assert!(keys(&list).map_err(|error| error.to_string()).map(|keys| !keys.is_empty()).unwrap_or(true));
        }
    }
}

//! The short form of API keys: `--api-keys "<key>=<tenant>,..."`, without limits.

use std::{collections::HashMap, fmt, fs, path::PathBuf};

use rapport_events::Tenant;

use crate::keys::{KEY_BYTES, KeysError, hash_of};

const HASHED: &str = "sha256:";

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

impl KeyList {
    /// The tenants by the hashes of their keys. Entries `key=tenant` are separated by commas; an entry
    /// `@path` stands for the lines of a file, where blank lines and lines that begin with `#` do not
    /// count. `sha256:<hex>=tenant` gives a key by its hash. The last `=` separates, so that a key may
    /// hold one.
    ///
    /// # Errors
    /// A file that cannot be read, or an entry that is not of that form.
    pub fn parse(&self) -> Result<HashMap<[u8; 32], Tenant>, KeysError> {
        let mut keys = HashMap::new();
        let entries = self.0.split(',').map(str::trim).enumerate();
        for (number, entry) in entries.filter(|(_, entry)| !entry.is_empty()) {
            match entry.strip_prefix('@') {
                None => add(&mut keys, entry).map_err(|reason| at(format!("entry {}", number + 1), reason))?,
                Some(path) => add_file(&mut keys, PathBuf::from(path.trim()))?,
            }
        }
        Ok(keys)
    }
}

fn add_file(keys: &mut HashMap<[u8; 32], Tenant>, path: PathBuf) -> Result<(), KeysError> {
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(KeysError::File { path, source }),
    };
    let lines = text.lines().map(str::trim).enumerate();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        add(keys, line).map_err(|reason| at(format!("{}, line {}", path.display(), number + 1), reason))?;
    }
    Ok(())
}

fn add(keys: &mut HashMap<[u8; 32], Tenant>, entry: &str) -> Result<(), String> {
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
    match keys.insert(hash, tenant.clone()) {
        Some(other) if other != tenant => Err(format!("is already the key of the tenant {other}")),
        _ => Ok(()),
    }
}

/// The entry is named by its place, never by its text.
fn at(place: String, reason: String) -> KeysError {
    KeysError::Entry { place, reason }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn parsed(list: &str) -> Result<HashMap<[u8; 32], Tenant>, KeysError> {
        KeyList(list.to_owned()).parse()
    }

    #[test]
    fn a_file_may_hold_keys_and_hashes_of_keys() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "# ours\n\nplain=acme\nsha256:{}=bolt", hex::encode(hash_of("secret"))).unwrap();
        let keys = parsed(&format!("@{}", file.path().display())).unwrap();
        assert_eq!(keys[&hash_of("plain")].as_str(), "acme");
        assert_eq!(keys[&hash_of("secret")].as_str(), "bolt");
    }

    #[test]
    fn a_bad_entry_is_named_by_its_place_and_never_shown() {
        for list in ["ok=acme,sEcReT", "ok=acme,sEcReT=Not A Tenant", "ok=acme,sha256:sEcReT=acme", "ok=acme,ok=bolt"] {
            let error = parsed(list).unwrap_err().to_string();
            assert!(error.starts_with("API key entry 2: "), "{error}");
            assert!(!error.contains("sEcReT"), "{error}");
        }
        assert!(parsed("@/no/such/file").unwrap_err().to_string().contains("/no/such/file"));
        assert!(!format!("{:?}", KeyList("sEcReT=acme".into())).contains("sEcReT"));
    }

    proptest! {
        #[test]
        fn no_list_of_keys_panics(list in "\\PC{0,200}") {
            prop_assume!(!list.contains('@'));
            prop_assert!(parsed(&list).map(|keys| keys.len() <= 200).unwrap_or(true));
        }
    }
}

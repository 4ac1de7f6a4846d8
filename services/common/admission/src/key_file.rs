//! The file of API keys: who may send what, by which doors, and how much.
//!
//! ```yaml
//! keys:
//!   - name: shop-web            # in metrics and messages; keys of one name share their limits
//!     sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//!     tenant: acme
//!     expires: 2027-01-01T00:00:00Z                      # all below may be left out
//!     rate: { events_per_second: 5000, burst: 20000 }
//!     daily_events: 50000000
//!     doors: [grpc, segment]
//!     app_ids: [shop]                                    # for trackers that send no key
//!     hosts: [collect.shop.example]
//! ```
//!
//! To rotate a key, add a second entry of the same name with the new key's hash, move the clients,
//! and take the first one out: both are good while both stand there.

use std::{collections::HashMap, fs, io::Read as _, path::Path};

use rapport_events::{EventTime, Tenant};
use serde::Deserialize;

use crate::{
    keys::{Door, KeysError},
    quota::{Limits, Rate},
};

/// Larger files are refused: a key takes some 200 bytes, so this is room for tens of thousands.
pub const FILE_BYTES: u64 = 16 << 20;
const NAME_BYTES: usize = 64;
const APP_ID_BYTES: usize = 256;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    keys: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sha256: String,
    tenant: String,
    expires: Option<String>,
    rate: Option<RateEntry>,
    daily_events: Option<u64>,
    doors: Option<Vec<Door>>,
    #[serde(default)]
    app_ids: Vec<String>,
    #[serde(default)]
    hosts: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateEntry {
    events_per_second: u32,
    burst: Option<u32>,
}

/// One key, checked.
#[derive(Debug, Clone)]
pub struct Grant {
    pub name: String,
    pub hash: [u8; 32],
    pub tenant: Tenant,
    pub expires: Option<EventTime>,
    pub limits: Limits,
    /// `None`: every door.
    pub doors: Option<Vec<Door>>,
    pub app_ids: Vec<String>,
    /// Lower case, without a port.
    pub hosts: Vec<String>,
}

/// The text of the file.
///
/// # Errors
/// It cannot be read, or it is larger than [`FILE_BYTES`].
pub fn read(path: &Path) -> Result<String, KeysError> {
    let failed = |source| KeysError::File { path: path.to_owned(), source };
    let mut text = String::new();
    fs::File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_string(&mut text)).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES {
        let reason = format!("the file may have {FILE_BYTES} bytes, has more");
        return Err(KeysError::Entry { place: path.display().to_string(), reason });
    }
    Ok(text)
}

/// Reads and checks the keys.
///
/// # Errors
/// Names the entry by its place and name, and the field.
pub fn parse(text: &str) -> Result<Vec<Grant>, KeysError> {
    let file: File = serde_yaml_ng::from_str(text)
        .map_err(|error| KeysError::Entry { place: "file".into(), reason: error.to_string() })?;
    let mut grants = Vec::with_capacity(file.keys.len());
    // The first of each name, and whose each key, app id and host is.
    let mut names: HashMap<String, (Tenant, Limits)> = HashMap::new();
    let mut hashes: HashMap<[u8; 32], usize> = HashMap::new();
    let mut tenants: HashMap<(&str, String), Tenant> = HashMap::new();
    for (n, entry) in file.keys.into_iter().enumerate() {
        let place = format!("keys[{n}] ({:?})", entry.name.chars().take(NAME_BYTES).collect::<String>());
        let refused = |reason: String| KeysError::Entry { place: place.clone(), reason };
        let grant = entry.check().map_err(refused)?;
        if let Some(other) = hashes.insert(grant.hash, n) {
            return Err(refused(format!("sha256: is already the key of keys[{other}]")));
        }
        let (tenant, limits) = names.entry(grant.name.clone()).or_insert((grant.tenant.clone(), grant.limits));
        if *tenant != grant.tenant || *limits != grant.limits {
            return Err(refused("name: keys of one name must have the same tenant, rate and daily_events".into()));
        }
        let ids = grant.app_ids.iter().map(|id| ("app_ids", id)).chain(grant.hosts.iter().map(|id| ("hosts", id)));
        for (field, id) in ids {
            let owner = tenants.entry((field, id.clone())).or_insert_with(|| grant.tenant.clone());
            if *owner != grant.tenant {
                return Err(refused(format!("{field}: {id:?} belongs to the tenant {owner} already")));
            }
        }
        grants.push(grant);
    }
    Ok(grants)
}

impl Entry {
    fn check(self) -> Result<Grant, String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if self.name.is_empty() || self.name.len() > NAME_BYTES || !self.name.bytes().all(plain) {
            return Err(format!("name: must be 1 to {NAME_BYTES} letters, digits, \"-\", \"_\" or \".\""));
        }
        let mut hash = [0; 32];
        hex::decode_to_slice(&self.sha256, &mut hash).map_err(|_| {
            format!("sha256: must be 64 hex digits (printf %s \"$KEY\" | sha256sum), has {}", self.sha256.len())
        })?;
        let tenant = Tenant::parse(&self.tenant).map_err(|error| format!("tenant: {}", error.reason))?;
        let expires = self.expires.map(|text| {
            EventTime::parse_rfc3339(&text)
                .ok_or_else(|| format!("expires: must be a time like 2027-01-01T00:00:00Z, is {text:?}"))
        });
        let rate = self.rate.map(|RateEntry { events_per_second, burst }| {
            let burst = burst.unwrap_or(events_per_second);
            for (field, value) in [("events_per_second", events_per_second), ("burst", burst)] {
                if !(1..=Rate::MOST).contains(&value) {
                    return Err(format!("rate.{field}: must be between 1 and {}, is {value}", Rate::MOST));
                }
            }
            Ok(Rate { events_per_second, burst })
        });
        if self.doors.as_ref().is_some_and(Vec::is_empty) {
            return Err("doors: is empty; leave it out to allow every door".into());
        }
        if let Some(id) = self.app_ids.iter().find(|id| id.is_empty() || id.len() > APP_ID_BYTES) {
            return Err(format!("app_ids: must have 1 to {APP_ID_BYTES} bytes each, one has {}", id.len()));
        }
        let bad_host = |host: &&String| host.is_empty() || host.len() > 253 || host.contains([':', '/', ' ']);
        if let Some(host) = self.hosts.iter().find(bad_host) {
            return Err(format!("hosts: must be host names without a port, like collect.shop.example, is {host:?}"));
        }
        Ok(Grant {
            name: self.name,
            hash,
            tenant,
            expires: expires.transpose()?,
            limits: Limits { rate: rate.transpose()?, daily_events: self.daily_events },
            doors: self.doors,
            app_ids: self.app_ids,
            hosts: self.hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn one(more: &str) -> Result<Vec<Grant>, String> {
        parse(&format!("keys:\n  - {{name: web, sha256: {HASH}, tenant: acme{more}}}")).map_err(|e| e.to_string())
    }

    #[test]
    fn an_entry_says_who_may_send_what_and_how_much() {
        let grants = one(", expires: \"2027-01-01T00:00:00Z\", rate: {events_per_second: 5, burst: 9}, \
                          daily_events: 7, doors: [grpc, snowplow], app_ids: [shop], hosts: [C.Example]")
        .unwrap();
        let grant = &grants[0];
        assert_eq!((grant.name.as_str(), grant.tenant.as_str(), grant.hash[0]), ("web", "acme", 0x9f));
        assert_eq!(grant.expires.unwrap().to_string(), "2027-01-01T00:00:00Z");
        let rate = Some(Rate { events_per_second: 5, burst: 9 });
        assert_eq!(grant.limits, Limits { rate, daily_events: Some(7) });
        assert_eq!(grant.doors, Some(vec![Door::Grpc, Door::Snowplow]));
        assert_eq!((grant.app_ids[0].as_str(), grant.hosts[0].as_str()), ("shop", "c.example"));
    }

    #[test]
    fn what_is_left_out_is_not_limited() {
        let grant = &one("").unwrap()[0];
        assert_eq!((grant.limits, &grant.doors, grant.expires), (Limits::default(), &None, None));
    }

    #[test]
    fn a_mistake_is_named_with_its_entry_and_field() {
        for (more, said) in [
            (", expires: tomorrow", "expires: must be a time like 2027-01-01T00:00:00Z"),
            (", rate: {events_per_second: 0}", "rate.events_per_second: must be between 1 and"),
            (", doors: []", "doors: is empty"),
            (", doors: [gprc]", "unknown variant `gprc`"),
            (", hosts: [\"a:80\"]", "hosts: must be host names without a port"),
            (", app_ids: [\"\"]", "app_ids: must have 1 to 256 bytes"),
            (", tennant: x", "unknown field `tennant`"),
        ] {
            let error = one(more).unwrap_err();
            assert!(error.contains(said), "{more}: {error}");
        }
        assert!(one(", doors: []").unwrap_err().contains("keys[0] (\"web\")"));
        assert!(parse("").unwrap_err().to_string().contains("keys"), "an empty file is a mistake");
        assert!(parse("keys: []").unwrap().is_empty(), "no key at all can be meant");
    }

    #[test]
    fn two_entries_cannot_contradict_each_other() {
        let other = HASH.replace("9f", "00");
        let two = |second: &str| {
            parse(&format!("keys:\n  - {{name: web, sha256: {HASH}, tenant: acme, app_ids: [shop]}}\n  - {{{second}}}"))
                .map_err(|error| error.to_string())
        };
        assert_eq!(two(&format!("name: web, sha256: {other}, tenant: acme, app_ids: [shop]")).unwrap().len(), 2);
        let error = two(&format!("name: web2, sha256: {HASH}, tenant: acme")).unwrap_err();
        assert!(error.contains("is already the key of keys[0]"), "{error}");
        let error = two(&format!("name: web, sha256: {other}, tenant: bolt")).unwrap_err();
        assert!(error.contains("must have the same tenant"), "{error}");
        let error = two(&format!("name: web2, sha256: {other}, tenant: bolt, app_ids: [shop]")).unwrap_err();
        assert!(error.contains("\"shop\" belongs to the tenant acme"), "{error}");
    }

    proptest! {
        #[test]
        fn no_file_panics(text in "\\PC{0,200}") {
            prop_assert!(parse(&text).map(|grants| grants.len() < 200).unwrap_or(true));
        }
    }
}

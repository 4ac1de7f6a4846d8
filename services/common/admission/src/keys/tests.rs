use std::fs;

use super::*;

fn list(keys: &str) -> Keys {
    Keys::load("test", Some(&keys.parse().unwrap()), None, None).unwrap()
}

fn tenant_of(keys: &Keys, key: &str) -> Result<String, Unauthenticated> {
    keys.caller(Some(key), Door::Grpc).map(|caller| caller.tenant().to_string())
}

/// A key file with these entries: (name, key, more).
struct KeyFile(tempfile::NamedTempFile);

impl KeyFile {
    fn of(entries: &[(&str, &str, &str)]) -> Self {
        let file = Self(tempfile::NamedTempFile::new().unwrap());
        file.write(entries);
        file
    }

    fn write(&self, entries: &[(&str, &str, &str)]) {
        let lines = entries.iter().map(|(name, key, more)| {
            format!("\n  - {{name: {name}, sha256: {}, tenant: acme{more}}}", hex::encode(hash_of(key)))
        });
        let entries: String = lines.collect();
        fs::write(self.0.path(), if entries.is_empty() { "keys: []".into() } else { format!("keys:{entries}\n") })
            .unwrap();
    }

    fn keys(&self) -> Keys {
        Keys::load("test", None, Some(self.0.path()), None).unwrap()
    }
}

#[test]
fn a_key_opens_the_door_to_its_own_tenant_only() {
    let keys = list("one=acme, two==bolt");
    assert_eq!(tenant_of(&keys, "one").unwrap(), "acme");
    assert_eq!(tenant_of(&keys, "two=").unwrap(), "bolt");
    assert_eq!(tenant_of(&keys, "three"), Err(Unauthenticated::Unknown));
    assert_eq!(keys.caller(None, Door::Grpc).unwrap_err(), Unauthenticated::Missing);
}

#[test]
fn no_key_at_all_is_refused_unless_insecurity_is_asked_for() {
    assert!(matches!(Keys::load("test", None, None, None), Err(KeysError::None)));
    assert!(matches!(Keys::load("test", Some(&" , ".parse().unwrap()), None, None), Err(KeysError::None)));
    let open = Keys::load("test", None, None, Some(Tenant::parse("demo").unwrap())).unwrap();
    assert_eq!(open.caller(None, Door::Bulk).unwrap().tenant().as_str(), "demo");
    assert_eq!(tenant_of(&open, "whatever").unwrap(), "demo");
    assert_eq!(open.by_app_id("any", Door::Snowplow).unwrap().tenant().as_str(), "demo");
}

#[test]
fn keys_rotate_without_a_restart_and_the_old_one_stops_also_for_who_is_in() {
    let file = KeyFile::of(&[("web", "old", "")]);
    let keys = file.keys();
    let streaming = keys.caller(Some("old"), Door::Grpc).unwrap();
    assert_eq!(keys.reload(), Reload::Unchanged);

    file.write(&[("web", "old", ""), ("web", "new", "")]);
    assert_eq!(keys.reload(), Reload::Reloaded);
    assert_eq!((tenant_of(&keys, "old").is_ok(), tenant_of(&keys, "new").is_ok()), (true, true));
    assert!(keys.renewed(&streaming, Door::Grpc).is_ok());

    file.write(&[("web", "new", "")]);
    assert_eq!(keys.reload(), Reload::Reloaded);
    assert_eq!(tenant_of(&keys, "old"), Err(Unauthenticated::Unknown));
    assert_eq!(keys.renewed(&streaming, Door::Grpc).unwrap_err(), Unauthenticated::Unknown);
    assert!(tenant_of(&keys, "new").is_ok());
}

#[test]
fn a_broken_or_missing_file_keeps_the_keys_from_before() {
    let file = KeyFile::of(&[("web", "k", "")]);
    let keys = file.keys();
    fs::write(file.0.path(), "keys: [{name: web}").unwrap();
    assert_eq!(keys.reload(), Reload::Failed);
    assert_eq!(keys.reload(), Reload::Unchanged, "it is told once");
    assert!(tenant_of(&keys, "k").is_ok());
    fs::remove_file(file.0.path()).unwrap();
    assert_eq!(keys.reload(), Reload::Failed);
    assert!(tenant_of(&keys, "k").is_ok());
    file.write(&[]);
    assert_eq!(keys.reload(), Reload::Reloaded, "taking every key out can be meant");
    assert_eq!(tenant_of(&keys, "k"), Err(Unauthenticated::Unknown));
}

#[test]
fn a_key_that_has_expired_stops_also_for_who_is_in() {
    let file = KeyFile::of(&[("web", "k", "")]);
    let keys = file.keys();
    let streaming = keys.caller(Some("k"), Door::Grpc).unwrap();
    file.write(&[("web", "k", ", expires: \"2020-01-01T00:00:00Z\"")]);
    keys.reload();
    assert_eq!(tenant_of(&keys, "k"), Err(Unauthenticated::Expired));
    assert_eq!(keys.renewed(&streaming, Door::Grpc).unwrap_err(), Unauthenticated::Expired);
}

#[test]
fn a_key_opens_only_the_doors_that_it_lists() {
    let keys = KeyFile::of(&[("web", "k", ", doors: [segment, posthog]")]).keys();
    assert!(keys.caller(Some("k"), Door::PostHog).is_ok());
    assert_eq!(keys.caller(Some("k"), Door::Grpc).unwrap_err(), Unauthenticated::Door);
}

#[test]
fn trackers_without_a_key_are_known_by_app_id_or_host() {
    let keys = KeyFile::of(&[("web", "k", ", app_ids: [shop], hosts: [collect.shop.example]")]).keys();
    assert_eq!(keys.by_app_id("shop", Door::Snowplow).unwrap().name(), "web");
    assert_eq!(keys.by_host("Collect.Shop.Example:443", Door::Snowplow).unwrap().name(), "web");
    assert_eq!(keys.by_app_id("other", Door::Snowplow).unwrap_err(), Unauthenticated::AppId);
    assert_eq!(keys.by_host("other", Door::Snowplow).unwrap_err(), Unauthenticated::Host);
}

#[test]
fn keys_of_one_name_share_their_quota_and_a_reload_does_not_renew_it() {
    let file = KeyFile::of(&[("web", "a", ", daily_events: 10"), ("web", "b", ", daily_events: 10")]);
    let keys = file.keys();
    let take = |key: &str, events| keys.caller(Some(key), Door::Grpc).unwrap().quota().take(events).map(|c| c.spend());
    assert!(take("a", 6).is_ok());
    assert!(take("b", 5).is_err());
    file.write(&[("web", "b", ", daily_events: 12")]);
    keys.reload();
    assert!(take("b", 7).is_err());
    assert!(take("b", 6).is_ok());
}

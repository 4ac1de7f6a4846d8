//! API keys: who is calling, and so whose data it is, and how much of it may come. Keys are held as
//! SHA-256 only, so that a core dump or a log never shows one, and a lookup takes the same path for
//! every key. The key file is read again when it changes: a key that was taken out stops at its next
//! request, on an open stream too.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use rapport_events::{EventTime, Tenant};
use rapport_runtime::Lifecycle;
use serde::Deserialize;
use sha2::{Digest, Sha256};

pub use crate::{credential::credential, key_list::KeyList};
use crate::{
    key_file::{self, Grant},
    quota::{Limits, Quota},
};

/// Longer ones are not keys; it also bounds the hashing that a stranger can ask for.
pub const KEY_BYTES: usize = 512;

/// How often the key file is looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(2);

/// A way in, as `doors` of a key names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Door {
    Grpc,
    Segment,
    Snowplow,
    PostHog,
    CloudEvents,
    Bulk,
    Webhook,
    /// The scorer's: Gorse's REST API.
    Gorse,
}

impl Door {
    /// In metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Segment => "segment",
            Self::Snowplow => "snowplow",
            Self::PostHog => "posthog",
            Self::CloudEvents => "cloudevents",
            Self::Bulk => "bulk",
            Self::Webhook => "webhook",
            Self::Gorse => "gorse",
        }
    }

    /// The stage of a dead letter that was refused here.
    pub const fn stage(self) -> &'static str {
        match self {
            Self::Grpc => "collector/grpc",
            Self::Segment => "collector/segment",
            Self::Snowplow => "collector/snowplow",
            Self::PostHog => "collector/posthog",
            Self::CloudEvents => "collector/cloudevents",
            Self::Bulk => "collector/bulk",
            Self::Webhook => "collector/webhook",
            Self::Gorse => "scorer/gorse",
        }
    }
}

/// Why the keys cannot be used. Names an entry by its place, never by its text.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("cannot read the API keys in {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("API key {place}: {reason}")]
    Entry { place: String, reason: String },
    #[error(
        "no API keys: give --api-keys-file <file>, --api-keys \"<key>=<tenant>,...\" or \"@<file>\", or, for \
         development only, --insecure-tenant <tenant>"
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
    #[error("the API key has expired")]
    Expired,
    #[error("the API key is not allowed to send in this way; its entry in the key file lists the doors it may use")]
    Door,
    #[error("the app id is not known; list it under app_ids of a key")]
    AppId,
    #[error("the host name is not known; list it under hosts of a key")]
    Host,
}

/// Who is calling. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller(Arc<Known>);

#[derive(Debug)]
struct Known {
    /// `None`: let in without a known key.
    hash: Option<[u8; 32]>,
    tenant: Tenant,
    expires: Option<EventTime>,
    doors: Option<Vec<Door>>,
    quota: Arc<Quota>,
}

impl Caller {
    fn unlimited(hash: Option<[u8; 32]>, tenant: Tenant, quotas: &mut Quotas<'_>) -> Self {
        let quota = quotas.of(tenant.as_str(), Limits::default());
        Self(Arc::new(Known { hash, tenant, expires: None, doors: None, quota }))
    }

    pub fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }

    /// The key's name in the file, for metrics and messages; of a key without one, its tenant.
    pub fn name(&self) -> &str {
        self.0.quota.name()
    }

    pub fn quota(&self) -> &Arc<Quota> {
        &self.0.quota
    }

    fn check(&self, door: Door, now: EventTime) -> Result<(), Unauthenticated> {
        if self.0.expires.is_some_and(|end| end <= now) {
            return Err(Unauthenticated::Expired);
        }
        match &self.0.doors {
            Some(doors) if !doors.contains(&door) => Err(Unauthenticated::Door),
            _ => Ok(()),
        }
    }
}

/// The quotas by name: they outlive a reload.
type ByName = HashMap<String, Arc<Quota>>;

/// Hands out the quotas of the next table, those of the table before where the name is the same.
struct Quotas<'a> {
    service: &'static str,
    before: &'a ByName,
    now: ByName,
}

impl Quotas<'_> {
    fn of(&mut self, name: &str, limits: Limits) -> Arc<Quota> {
        let quota = self.now.entry(name.to_owned()).or_insert_with(|| match self.before.get(name) {
            Some(quota) => {
                quota.set_limits(limits);
                Arc::clone(quota)
            }
            None => Arc::new(Quota::new(self.service, name, limits)),
        });
        Arc::clone(quota)
    }
}

/// All keys at one moment.
#[derive(Debug, Default)]
struct Table {
    by_hash: HashMap<[u8; 32], Caller>,
    by_app_id: HashMap<String, Caller>,
    by_host: HashMap<String, Caller>,
    quotas: ByName,
    /// Development: who a caller without a known key is.
    anyone: Option<Caller>,
}

/// The keys that open the door, and who is behind each.
#[derive(Debug)]
pub struct Keys {
    /// Whose metrics count what its keys send: "collector", "scorer".
    service: &'static str,
    table: ArcSwap<Table>,
    list: HashMap<[u8; 32], Tenant>,
    anyone: Option<Tenant>,
    file: Option<PathBuf>,
    /// Hash of the file's text as it was last looked at.
    seen: Mutex<u64>,
}

/// What a look at the key file gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    Unchanged,
    Reloaded,
    /// The keys from before stay.
    Failed,
}

impl Keys {
    /// Reads all keys of a service: `list` (see [`KeyList::parse`]), `file` (see [`key_file`]), and, for development,
    /// who `anyone` without a known key is.
    ///
    /// # Errors
    /// A file that cannot be read, an entry that is wrong, or no key at all.
    pub fn load(
        service: &'static str,
        list: Option<&KeyList>,
        file: Option<&Path>,
        anyone: Option<Tenant>,
    ) -> Result<Self, KeysError> {
        let list = list.map(KeyList::parse).transpose()?.unwrap_or_default();
        if list.is_empty() && file.is_none() && anyone.is_none() {
            return Err(KeysError::None);
        }
        let keys = Self {
            service,
            table: ArcSwap::default(),
            list,
            anyone,
            file: file.map(Path::to_owned),
            seen: Mutex::new(0),
        };
        let text = keys.file.as_deref().map(key_file::read).transpose()?;
        *keys.seen.lock().unwrap_or_else(PoisonError::into_inner) = hash_of_text(text.as_deref());
        let grants = text.map(|text| key_file::parse(&text)).transpose()?.unwrap_or_default();
        keys.replace(grants)?;
        Ok(keys)
    }

    fn replace(&self, grants: Vec<Grant>) -> Result<(), KeysError> {
        let before = self.table.load();
        let mut quotas = Quotas { service: self.service, before: &before.quotas, now: HashMap::new() };
        let mut table = Table::default();
        for grant in grants {
            if self.list.contains_key(&grant.hash) {
                let reason = "sha256: is in --api-keys too; take it out there".into();
                return Err(KeysError::Entry { place: format!("{:?}", grant.name), reason });
            }
            let quota = quotas.of(&grant.name, grant.limits);
            let Grant { hash, tenant, expires, doors, .. } = grant;
            let caller = Caller(Arc::new(Known { hash: Some(hash), tenant, expires, doors, quota }));
            table.by_hash.insert(hash, caller.clone());
            // While a key is being replaced, two of them may list an id: the later one is good for longer.
            for (ids, known) in [(grant.app_ids, &mut table.by_app_id), (grant.hosts, &mut table.by_host)] {
                known.extend(ids.into_iter().map(|id| (id, caller.clone())));
            }
        }
        for (hash, tenant) in &self.list {
            table.by_hash.insert(*hash, Caller::unlimited(Some(*hash), tenant.clone(), &mut quotas));
        }
        table.anyone = self.anyone.clone().map(|tenant| Caller::unlimited(None, tenant, &mut quotas));
        table.quotas = quotas.now;
        self.table.store(Arc::new(table));
        Ok(())
    }

    /// Reads the key file again when its text has changed. A file that is broken, or away, changes
    /// nothing: an operator's slip must not shut everybody out.
    pub fn reload(&self) -> Reload {
        let Some(file) = &self.file else { return Reload::Unchanged };
        let text = key_file::read(file);
        let hash = hash_of_text(text.as_deref().ok());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == hash {
            return Reload::Unchanged;
        }
        *seen = hash;
        let outcome = match text.and_then(|text| self.replace(key_file::parse(&text)?)) {
            Ok(()) => {
                tracing::info!(keys = self.len(), file = %file.display(), "API keys read again");
                Reload::Reloaded
            }
            Err(error) => {
                tracing::error!(%error, "the API keys cannot be read again; the ones from before stay");
                Reload::Failed
            }
        };
        let label = if outcome == Reload::Reloaded { "reloaded" } else { "failed" };
        let name = format!("rapport_{}_key_reloads_total", self.service);
        metrics::counter!(name, "outcome" => label).increment(1);
        outcome
    }

    /// Who calls with a key, or without one, at a door.
    ///
    /// # Errors
    /// No key, or one that is not known, has expired, or may not be used at this door.
    pub fn caller(&self, key: Option<&str>, door: Door) -> Result<Caller, Unauthenticated> {
        let table = self.table.load();
        let known = key.filter(|key| key.len() <= KEY_BYTES).and_then(|key| table.by_hash.get(&hash_of(key)));
        let missing = if key.is_some() { Unauthenticated::Unknown } else { Unauthenticated::Missing };
        admit(known.or(table.anyone.as_ref()), missing, door)
    }

    /// A caller of before, as it stands now: for one who stays.
    ///
    /// # Errors
    /// The key was taken out, or has expired since.
    pub fn renewed(&self, caller: &Caller, door: Door) -> Result<Caller, Unauthenticated> {
        let table = self.table.load();
        let known = caller.0.hash.and_then(|hash| table.by_hash.get(&hash));
        admit(known.or(table.anyone.as_ref()), Unauthenticated::Unknown, door)
    }

    /// Whose app id it is, for trackers that send no key.
    ///
    /// # Errors
    /// Nobody's, or the key behind it has expired or may not be used at this door.
    pub fn by_app_id(&self, app_id: &str, door: Door) -> Result<Caller, Unauthenticated> {
        let table = self.table.load();
        admit(table.by_app_id.get(app_id).or(table.anyone.as_ref()), Unauthenticated::AppId, door)
    }

    /// Whose host name (the `Host` header, with or without a port) it is, for trackers that send no key.
    ///
    /// # Errors
    /// Nobody's, or the key behind it has expired or may not be used at this door.
    pub fn by_host(&self, host: &str, door: Door) -> Result<Caller, Unauthenticated> {
        let table = self.table.load();
        let host = host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
        admit(table.by_host.get(&host).or(table.anyone.as_ref()), Unauthenticated::Host, door)
    }

    /// Every key's account.
    pub fn quotas(&self) -> Vec<Arc<Quota>> {
        self.table.load().quotas.values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.table.load().by_hash.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn admit(known: Option<&Caller>, missing: Unauthenticated, door: Door) -> Result<Caller, Unauthenticated> {
    let caller = known.ok_or(missing)?;
    caller.check(door, EventTime::now())?;
    Ok(caller.clone())
}

/// Looks at the key file now and then, until a drain.
pub async fn follow(keys: &Keys, lifecycle: &Lifecycle) {
    if keys.file.is_none() {
        return;
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(RELOAD_EVERY) => {}
            () = lifecycle.drain_requested() => return,
        }
        rapport_rpc::tls::off_the_worker(|| keys.reload());
    }
}

pub fn hash_of(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn hash_of_text(text: Option<&str>) -> u64 {
    text.map_or(0, |text| xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
}

#[cfg(test)]
mod tests;

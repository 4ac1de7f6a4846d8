//! What features were like where models learned, beside the log: `_statistics/<tenant>/<ms, 20 digits>.json`.
//! Each file is made once; the newest holds.

use object_store::{ObjectStore as _, ObjectStoreExt as _, path::Path};
use rapport_events::{EventTime, Tenant};

use crate::{
    Error, OfflineLog,
    store::{listed, within},
};

const FOLDER: &str = "_statistics";

fn folder(tenant: &Tenant) -> Path {
    Path::from(FOLDER).join(tenant.as_str())
}

impl OfflineLog {
    /// Puts a reference in force from now on. False when another one was made in the same millisecond.
    ///
    /// # Errors
    /// The store is away.
    pub fn put_reference(&self, tenant: &Tenant, made: EventTime, json: &str) -> Result<bool, Error> {
        self.make(&folder(tenant).join(format!("{:020}.json", made.as_ms().max(0))), json.as_bytes())
    }

    /// When the newest reference was made, if there is one.
    ///
    /// # Errors
    /// The store is away.
    pub fn newest_reference(&self, tenant: &Tenant) -> Result<Option<EventTime>, Error> {
        let folder = folder(tenant);
        let names = self.wait(listed(self.store.list(Some(&folder)), |meta| Some(meta.location)))?;
        let ms = names.iter().filter_map(|name| name.filename()?.strip_suffix(".json")?.parse().ok());
        Ok(ms.max().map(EventTime::from_ms))
    }

    /// The reference that was made at a moment.
    ///
    /// # Errors
    /// The store is away, or has none of that moment.
    pub fn reference(&self, tenant: &Tenant, made: EventTime) -> Result<String, Error> {
        let path = folder(tenant).join(format!("{:020}.json", made.as_ms()));
        let bytes = self.wait(within(async { self.store.get(&path).await?.bytes().await }))?;
        String::from_utf8(bytes.to_vec()).map_err(|e| Error::corrupt(&path, e))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_newest_reference_of_a_tenant_holds() {
        let log = OfflineLog::on(Arc::new(object_store::memory::InMemory::new())).unwrap();
        let tenant = |name| Tenant::parse(name).unwrap();
        let (a, b, ms) = (tenant("a"), tenant("b"), EventTime::from_ms);
        assert_eq!(log.newest_reference(&a).unwrap(), None);
        assert!(log.put_reference(&a, ms(9), "nine").unwrap());
        assert!(log.put_reference(&a, ms(10), "ten").unwrap());
        assert!(!log.put_reference(&a, ms(10), "other").unwrap());
        assert_eq!(log.newest_reference(&a).unwrap(), Some(ms(10)));
        assert_eq!(log.reference(&a, ms(10)).unwrap(), "ten");
        assert_eq!(log.newest_reference(&b).unwrap(), None);
        assert!(log.reference(&b, ms(10)).is_err());
    }
}

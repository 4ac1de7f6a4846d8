//! Customers that are not to be learned from any more: one line a customer, a hash of the id.

use std::{
    collections::HashSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use rapport_events::Tenant;
use sha2::{Digest as _, Sha256};

use crate::Error;

/// The list of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    tenant: Tenant,
    hashes: HashSet<String>,
}

impl Forgotten {
    /// Nobody.
    pub fn nobody(tenant: &Tenant) -> Self {
        Self { tenant: tenant.clone(), hashes: HashSet::new() }
    }

    /// What is on record; nobody where there is no list.
    ///
    /// # Errors
    /// The list cannot be read: nobody may then be taken for remembered.
    pub fn read(folder: &Path, tenant: &Tenant) -> Result<Self, Error> {
        let path = path(folder, tenant);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Error::file(path)(error)),
        };
        let hashes = text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
        Ok(Self { tenant: tenant.clone(), hashes })
    }

    /// Puts a customer on record. Whether it is new there.
    ///
    /// # Errors
    /// The disk fails.
    pub fn record(folder: &Path, tenant: &Tenant, customer: &str) -> Result<bool, Error> {
        if Self::read(folder, tenant)?.has(customer) {
            return Ok(false);
        }
        fs::create_dir_all(folder).map_err(Error::file(folder))?;
        let path = path(folder, tenant);
        // One write of one line at the end: two at once both stand.
        let line = format!("{}\n", hash(tenant, customer));
        let written = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()).and_then(|()| file.sync_all()));
        written.map(|()| true).map_err(Error::file(&path))
    }

    pub fn has(&self, customer: &str) -> bool {
        !self.hashes.is_empty() && self.hashes.contains(&hash(&self.tenant, customer))
    }
}

fn path(folder: &Path, tenant: &Tenant) -> PathBuf {
    folder.join(format!("{tenant}.forgotten"))
}

fn hash(tenant: &Tenant, customer: &str) -> String {
    let hash = Sha256::new().chain_update(tenant.as_str()).chain_update([0]).chain_update(customer);
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_on_record_is_forgotten_for_that_tenant_and_the_record_names_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let (demo, acme) = (Tenant::parse("demo").unwrap(), Tenant::parse("acme").unwrap());
        assert!(!Forgotten::read(folder.path(), &demo).unwrap().has("ann"));
        assert!(Forgotten::record(folder.path(), &demo, "ann").unwrap());
        assert!(!Forgotten::record(folder.path(), &demo, "ann").unwrap(), "once is enough");
        let list = Forgotten::read(folder.path(), &demo).unwrap();
        assert!(list.has("ann") && !list.has("bob"));
        assert!(!Forgotten::read(folder.path(), &acme).unwrap().has("ann"));
        assert!(!fs::read_to_string(path(folder.path(), &demo)).unwrap().contains("ann"));
    }
}

//! Items that the live model does not know yet: the newest of the catalog, found by what their text has
//! in common with that of the items that a customer had.
//!
//! [`text`] makes vectors of texts; an [`index`] of the new items is made anew behind the answers when
//! the catalog or the model has changed ([`keep`]), so that a list costs one look into memory.

pub mod index;
pub mod keep;
pub mod text;

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
pub use index::NewItems;
use rapport_events::Tenant;

/// Every tenant's new items; readers take no lock. Tenants are those that have a model.
#[derive(Default)]
pub struct Board {
    tenants: ArcSwap<HashMap<Tenant, Arc<NewItems>>>,
}

impl Board {
    /// None, until they have been looked for.
    pub fn get(&self, tenant: &Tenant) -> Arc<NewItems> {
        self.tenants.load().get(tenant).cloned().unwrap_or_default()
    }

    pub fn put(&self, tenant: &Tenant, new: Arc<NewItems>) {
        self.tenants.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.insert(tenant.clone(), new.clone());
            all
        });
    }
}

use rapport_events::Tenant;

/// Builds keys. What stands in braces is a key's hash tag: everything about a customer has one
/// slot, so that one round trip and one script reach all of it on a cluster too.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The HASH of a customer.
    pub fn customer(&self, tenant: &Tenant, customer_id: &str) -> String {
        format!("{}:{{{tenant}/{customer_id}}}:s", self.prefix)
    }

    /// The cached list of a customer.
    pub fn list(&self, tenant: &Tenant, customer_id: &str) -> String {
        format!("{}:{{{tenant}/{customer_id}}}:l", self.prefix)
    }

    /// The HASH of an item's partial states.
    pub fn item(&self, tenant: &Tenant, item_id: &str) -> String {
        format!("{}:{{{tenant}/i/{item_id}}}:p", self.prefix)
    }

    /// The HASH of the partitions that are being made anew.
    pub fn rebuilding(&self) -> String {
        crate::ledger::rebuilding_key(&self.prefix)
    }

    /// What is written to see whether replicas have everything before it.
    pub(crate) fn settled(&self, tag: &str) -> String {
        format!("{}:{{{tag}}}:settled", self.prefix)
    }

    /// The HASH of a tenant's trends.
    pub fn trends(&self, tenant: &Tenant) -> String {
        format!("{}:{{{tenant}}}:trend", self.prefix)
    }
}

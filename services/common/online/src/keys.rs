use rapport_events::Tenant;
use rapport_features::Entity;

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

    /// The HASH of a segment's partial states.
    pub fn segment(&self, tenant: &Tenant, segment: &str) -> String {
        format!("{}:{{{tenant}/g/{segment}}}:p", self.prefix)
    }

    /// The HASH of the partial states of one of the entities that customers share; `None` of another entity.
    pub fn shared(&self, entity: Entity, tenant: &Tenant, id: &str) -> Option<String> {
        match entity {
            Entity::Item => Some(self.item(tenant, id)),
            Entity::Segment => Some(self.segment(tenant, id)),
            Entity::Customer | Entity::CustomerCategory | Entity::Session => None,
        }
    }

    /// The HASH of the partitions that are being made anew.
    pub fn rebuilding(&self) -> String {
        crate::ledger::rebuilding_key(&self.prefix)
    }

    /// What is written to see whether replicas have everything before it.
    pub(crate) fn settled(&self, tag: &str) -> String {
        format!("{}:{{{tag}}}:settled", self.prefix)
    }

    /// The HASH of a tenant's trends, or of those of its customers in a segment.
    pub fn trends(&self, tenant: &Tenant, segment: Option<&str>) -> String {
        match segment {
            None => format!("{}:{{{tenant}}}:trend", self.prefix),
            Some(segment) => format!("{}:{{{tenant}/g/{segment}}}:trend", self.prefix),
        }
    }
}

use std::{collections::HashMap, path::Path, sync::Arc};

use rapport_events::Tenant;

use crate::{Policy, PolicyError, PolicyErrors, read, watch::Folder};

/// The rules of every tenant.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    builtin: Arc<Policy>,
    tenants: HashMap<Tenant, Arc<Policy>>,
}

impl Policies {
    /// The built-in rules for everybody.
    pub fn builtin() -> Self {
        Self::default()
    }

    /// Reads the folder `dir`: `<tenant>.yaml` each.
    ///
    /// # Errors
    /// Every mistake of every file.
    pub fn load(dir: &Path) -> Result<Self, PolicyErrors> {
        Folder::open(dir).map(|folder| folder.policies())
    }

    /// Reads one file. The tenant is its name.
    ///
    /// # Errors
    /// Every mistake, with its path and what would be right.
    pub fn check_file(path: &Path) -> Result<Policy, Vec<PolicyError>> {
        let file = path.display().to_string();
        let wrong = |reason: String| vec![PolicyError { file: file.clone(), path: String::new(), reason }];
        let tenant = tenant_of(path).map_err(wrong)?;
        let text = read::policy_text(path).map_err(wrong)?;
        read::policy(&file, tenant.as_str(), &text, path.parent()).result
    }

    /// The tenant's rules, or the built-in ones.
    pub fn of(&self, tenant: &Tenant) -> &Arc<Policy> {
        // Most installations have no policy or one: no hash where there is nothing to find.
        if self.tenants.is_empty() {
            return &self.builtin;
        }
        self.tenants.get(tenant).unwrap_or(&self.builtin)
    }

    /// Every tenant that has rules of its own.
    pub fn tenants(&self) -> impl Iterator<Item = (&Tenant, &Arc<Policy>)> {
        self.tenants.iter()
    }

    /// Whether some tenant's events need a customer's consent.
    pub fn any_requires_consent(&self) -> bool {
        self.tenants.values().any(|policy| policy.consent.required())
    }
}

impl FromIterator<(Tenant, Arc<Policy>)> for Policies {
    fn from_iter<I: IntoIterator<Item = (Tenant, Arc<Policy>)>>(tenants: I) -> Self {
        Self { builtin: Arc::default(), tenants: tenants.into_iter().collect() }
    }
}

/// Whose policy a file is.
///
/// # Errors
/// Its name is no tenant's.
pub(crate) fn tenant_of(path: &Path) -> Result<Tenant, String> {
    if path.extension().is_none_or(|extension| extension != "yaml") {
        return Err("must be named <tenant>.yaml".into());
    }
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    Tenant::parse(name).map_err(|error| {
        format!("is named after no tenant: {}; name it <tenant>.yaml, with a-z, 0-9, '-' and '_'", error.reason)
    })
}

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

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../deploy/policies/example.yaml");

    #[test]
    fn the_example_is_right_and_shows_every_section() {
        let policy = Policies::check_file(Path::new(EXAMPLE)).unwrap();
        assert_eq!(policy.version, "example@3");
        let text = std::fs::read_to_string(EXAMPLE).unwrap();
        for section in read::SECTIONS {
            assert!(text.contains(&format!("\n{section}:")), "{section}");
        }
        let names: Vec<&str> = policy.validate.events.keys().map(String::as_str).collect();
        assert_eq!(names, ["purchase", "search"]);
        assert!(policy.consent.required() && policy.bots.rate.is_some());
        // What the comments call the default is it.
        let silent = Policy::from_yaml("example", "version: 3").unwrap();
        assert_eq!(silent.time.future, policy.time.future);
        assert_eq!((silent.collect, silent.privacy.detect), (policy.collect, policy.privacy.detect));
        assert_eq!(silent.enrich.sessions, policy.enrich.sessions);
    }

    #[test]
    fn a_tenant_without_a_policy_is_treated_by_the_built_in_rules() {
        let (acme, bolt) = (Tenant::parse("acme").unwrap(), Tenant::parse("bolt").unwrap());
        let policy = Arc::new(Policy::from_yaml("acme", "version: 4").unwrap());
        let policies: Policies = [(acme.clone(), policy)].into_iter().collect();
        assert_eq!(
            (policies.of(&acme).version.as_str(), policies.of(&bolt).version.as_str()),
            ("acme@4", crate::BUILTIN)
        );
        assert_eq!(Policies::builtin().of(&acme).version, crate::BUILTIN);
    }
}

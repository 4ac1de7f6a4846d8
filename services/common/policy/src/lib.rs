//! A tenant's rules for its events: one YAML file, checked, versioned, reloaded.

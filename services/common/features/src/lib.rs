//! Feature views as a pure fold over events: declared in YAML, the same online and offline.

//! The five services and where their programs are.

use std::path::PathBuf;

use super::ports;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    Collector,
    Cleaner,
    FeatureStore,
    Trainer,
    Scorer,
}

impl Service {
    pub const ALL: [Self; 5] = [Self::Collector, Self::Cleaner, Self::FeatureStore, Self::Trainer, Self::Scorer];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Collector => "collector",
            Self::Cleaner => "cleaner",
            Self::FeatureStore => "feature-store",
            Self::Trainer => "trainer",
            Self::Scorer => "scorer",
        }
    }

    /// The gRPC service that it is there for; the cleaner has none of its own.
    pub const fn grpc_service(self) -> Option<&'static str> {
        match self {
            Self::Collector => Some("rapport.collect.v1.Collector"),
            Self::Cleaner => None,
            Self::FeatureStore => Some("rapport.features.v1.FeatureStore"),
            Self::Trainer => Some("rapport.train.v1.Trainer"),
            Self::Scorer => Some("rapport.recommend.v1.Recommender"),
        }
    }

    /// Services of other people's clients on the same port.
    pub const fn other_grpc_services(self) -> &'static [&'static str] {
        match self {
            Self::FeatureStore => &["feast.serving.ServingService"],
            Self::Collector | Self::Cleaner | Self::Trainer | Self::Scorer => &[],
        }
    }

    /// The program, built beside this one: cargo puts test binaries into `deps/` below it.
    pub fn program(self) -> PathBuf {
        program(&format!("rapport-{}", self.name()))
    }
}

/// A program of the workspace in the profile that this one was built in.
///
/// # Panics
/// When it was not built: `cargo test` builds the programs of a package only for its own tests.
pub fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("a running program has a path");
    let mut folder = here.parent().expect("a program lies in a folder").to_path_buf();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --release --workspace` first, as `make test` does",
        path.display()
    );
    path
}

/// Where one instance listens.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub grpc: u16,
    pub http: u16,
    pub admin: u16,
}

impl Ports {
    pub fn free() -> Self {
        Self { grpc: ports::free(), http: ports::free(), admin: ports::free() }
    }
}

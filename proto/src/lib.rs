//! The contracts between the services and with the world: protobuf messages, gRPC clients and
//! servers, and the descriptor set that reflection serves. Changing one means a new version of it.

/// Generated code, one module for each package.
macro_rules! package {
    ($($path:ident)::+, $name:literal) => {
        package!(@ $name, $($path)+);
    };
    (@ $name:literal, $head:ident $($tail:ident)+) => {
        pub mod $head { package!(@ $name, $($tail)+); }
    };
    (@ $name:literal, $last:ident) => {
        pub mod $last { tonic::include_proto!($name); }
    };
}

/// Feast's, for the clients that its users have.
pub mod feast {
    package!(serving, "feast.serving");
    package!(types, "feast.types");
}

pub mod rapport {
    package!(catalog::v1, "rapport.catalog.v1");
    package!(collect::v1, "rapport.collect.v1");
    package!(events::v1, "rapport.events.v1");
    package!(experiments::v1, "rapport.experiments.v1");
    package!(features::v1, "rapport.features.v1");
    package!(models::v1, "rapport.models.v1");
    package!(privacy::v1, "rapport.privacy.v1");
    package!(recommend::v1, "rapport.recommend.v1");
    package!(train::v1, "rapport.train.v1");
}

/// The Open Inference Protocol, a contract of other people's.
pub mod inference {
    tonic::include_proto!("inference");
}

pub use rapport::{
    catalog::v1 as catalog, collect::v1 as collect, events::v1 as events, experiments::v1 as experiments,
    features::v1 as features, models::v1 as models, privacy::v1 as privacy, recommend::v1 as recommend,
    train::v1 as train,
};

/// Every message and service, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rapport.bin"));

//! Compiles the .proto files with protox, so that no system protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: &[&str] = &[
    "feast/serving/ServingService.proto",
    "feast/types/Value.proto",
    "inference/open_inference.proto",
    "rapport/catalog/v1/catalog.proto",
    "rapport/collect/v1/collector.proto",
    "rapport/events/v1/events.proto",
    "rapport/experiments/v1/experiments.proto",
    "rapport/features/v1/features.proto",
    "rapport/models/v1/models.proto",
    "rapport/privacy/v1/privacy.proto",
    "rapport/recommend/v1/recommend.proto",
    "rapport/train/v1/trainer.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    // Asked when it runs: a build cache that several checkouts share keeps this program, and with it the
    // folder of the first one.
    let root = env::var("CARGO_MANIFEST_DIR")?;
    let descriptors = protox::compile(FILES, [root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("rapport.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

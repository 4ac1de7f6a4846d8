//! CPU or CUDA, with one binary.
//!
//! The binary links libtorch's CPU part. On a machine with the CUDA build of libtorch,
//! `libtorch_cuda.so` registers its kernels when it is loaded, which must happen before the first
//! tensor; nothing refers to it, so nothing loads it by itself.

#![allow(unsafe_code)] // the one place of this crate: dlopen runs a library's initialisers

use std::path::PathBuf;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use tch::Device;

const CUDA: &str = "libtorch_cuda.so";

/// The device to train on: the first CUDA device where there is one. Call it before any tensor is
/// made.
pub fn choose() -> Device {
    // Without the driver's device node there is no GPU, and loading a gigabyte would be in vain.
    let driver = ["/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"].iter().any(|node| std::path::Path::new(node).exists());
    if driver {
        load_cuda();
    }
    let device = Device::cuda_if_available();
    tracing::info!(?device, "training device");
    device
}

fn load_cuda() {
    let beside_libtorch = option_env!("LIBTORCH").map(|root| PathBuf::from(root).join("lib").join(CUDA));
    let configured = std::env::var_os("LIBTORCH").map(|root| PathBuf::from(root).join("lib").join(CUDA));
    for path in [configured, beside_libtorch, Some(PathBuf::from(CUDA))].into_iter().flatten() {
        // SAFETY: libtorch_cuda.so is part of the libtorch that this binary is linked with; its
        // initialisers only register kernels with libtorch's dispatcher, and no tensor exists yet.
        match unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) } {
            Ok(library) => {
                tracing::debug!(path = %path.display(), "CUDA kernels are loaded");
                // It must stay loaded: kernels are called until the process ends.
                std::mem::forget(library);
                return;
            }
            Err(error) => tracing::debug!(path = %path.display(), %error, "no CUDA kernels here"),
        }
    }
    tracing::warn!("there is a GPU, but {CUDA} cannot be loaded: training on the CPU");
}

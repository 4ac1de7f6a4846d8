//! The shared library: found, loaded and checked once for the process.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
};

use ort::{environment::Environment, logging::LogLevel};

use crate::Error;

/// Kept for the life of the process: ONNX Runtime allows one environment.
static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

/// Loads ONNX Runtime: `dylib`, else `ORT_DYLIB_PATH`, else `libonnxruntime.so` from where the
/// system's loader looks. The first call that succeeds decides; later calls change nothing.
///
/// # Errors
/// The library is not there, is too old, or refuses to start.
pub fn init(dylib: Option<PathBuf>) -> Result<(), Error> {
    let _one_at_a_time = LOADING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if ENVIRONMENT.get().is_some() {
        return Ok(());
    }
    let path = dylib
        .or_else(|| std::env::var_os("ORT_DYLIB_PATH").filter(|p| !p.is_empty()).map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("libonnxruntime.so"));
    let failed = |reason: String| Error::Library { path: path.clone(), reason };
    let environment = ort::init_from(&path)
        .map_err(|e| failed(e.to_string()))?
        .with_name("rapport")
        .with_telemetry(false)
        .with_logger(Arc::new(|level, category: &str, _id: &str, _location: &str, message: &str| match level {
            LogLevel::Fatal | LogLevel::Error => tracing::error!(category, "onnx runtime: {message}"),
            LogLevel::Warning => tracing::warn!(category, "onnx runtime: {message}"),
            LogLevel::Info | LogLevel::Verbose => tracing::trace!(category, "onnx runtime: {message}"),
        }))
        .build()
        .map_err(|e| failed(e.to_string()))?;
    environment.set_log_level(LogLevel::Warning);
    tracing::debug!(path = %path.display(), "ONNX Runtime is loaded");
    // Cannot be taken: the lock is held and it was empty.
    ENVIRONMENT.get_or_init(|| environment);
    Ok(())
}

/// Version and build flags of the loaded library, for logs. `None` before [`init`].
pub fn version() -> Option<&'static str> {
    ENVIRONMENT.get().map(|_| ort::info())
}

pub(crate) fn environment() -> Result<&'static Environment, Error> {
    ENVIRONMENT.get().ok_or(Error::NotInitialised)
}

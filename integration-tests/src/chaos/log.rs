//! What happened when, on standard error and in a file: enough to tell what a run met with.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Instant,
};

pub struct Log {
    started: Instant,
    file: Mutex<Option<File>>,
}

impl Log {
    /// # Errors
    /// The file cannot be made.
    pub fn start(path: Option<&Path>) -> std::io::Result<Self> {
        let file = path.map(File::create).transpose()?;
        Ok(Self { started: Instant::now(), file: Mutex::new(file) })
    }

    pub fn line(&self, text: &str) {
        let line = format!("{:8.2} s  {text}", self.started.elapsed().as_secs_f64());
        eprintln!("{line}");
        if let Some(file) = self.file.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            // What stands on the terminal is enough when the disk is full.
            writeln!(file, "{line}").ok();
        }
    }
}

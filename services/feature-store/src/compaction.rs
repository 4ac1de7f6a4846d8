//! Beside everything else: small files of the offline log become large ones, now and then.

use std::time::Duration;

use rapport_offline::{CompactionSettings, OfflineLog};
use rapport_runtime::Lifecycle;

use crate::Error;

const TICK: Duration = Duration::from_millis(200);

pub(crate) struct Compactor {
    pub log: OfflineLog,
    pub every: Duration,
    pub settings: CompactionSettings,
}

impl Compactor {
    /// Passes until a drain. Every instance makes them: whoever comes second finds nothing to do.
    pub(crate) fn run(self, lifecycle: &Lifecycle) -> Result<(), Error> {
        if self.every.is_zero() {
            return Ok(());
        }
        let mut waited = Duration::ZERO;
        while !lifecycle.draining() {
            std::thread::sleep(TICK);
            waited += TICK;
            if waited < self.every {
                continue;
            }
            waited = Duration::ZERO;
            match self.log.compact(&self.settings, &|| lifecycle.draining()) {
                Ok(done) => {
                    metrics::counter!("rapport_feature_store_compacted_files_total")
                        .increment(done.files_merged as u64);
                    metrics::counter!("rapport_feature_store_compacted_rows_total").increment(done.rows as u64);
                    if done != rapport_offline::Compaction::default() {
                        tracing::info!(?done, "the offline log is compacted");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the offline log is not compacted; trying on");
                    metrics::counter!("rapport_feature_store_retries_total", "part" => "compaction").increment(1);
                }
            }
        }
        Ok(())
    }
}

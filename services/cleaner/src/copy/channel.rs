//! Between two stages. As many batches are on the way as were made at the start: no channel can hold
//! more, and a stage that is too fast waits for one to come back.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    time::Duration,
};

use super::batch::Batch;
use crate::metrics;

pub(super) struct Outbox {
    to: SyncSender<Box<Batch>>,
    stage: &'static str,
}

pub(super) struct Inbox {
    from: Receiver<Box<Batch>>,
    stage: &'static str,
}

/// The stage that should take it is not there any more.
#[derive(Debug)]
pub(super) struct Ended;

/// For batches that wait for `stage`, all of them if need be.
pub(super) fn channel(stage: &'static str, batches: usize) -> (Outbox, Inbox) {
    let (to, from) = sync_channel(batches);
    (Outbox { to, stage }, Inbox { from, stage })
}

impl Outbox {
    /// Never waits: there is room for every batch that was made.
    pub(super) fn give(&self, batch: Box<Batch>) -> Result<(), Ended> {
        self.to.send(batch).map_err(|_| Ended)?;
        metrics::queued(self.stage, 1.0);
        Ok(())
    }
}

impl Inbox {
    pub(super) fn take(&self, within: Duration) -> Result<Box<Batch>, RecvTimeoutError> {
        let batch = self.from.recv_timeout(within)?;
        metrics::queued(self.stage, -1.0);
        Ok(batch)
    }

    /// What waits already.
    pub(super) fn take_waiting(&self) -> Result<Box<Batch>, TryRecvError> {
        let batch = self.from.try_recv()?;
        metrics::queued(self.stage, -1.0);
        Ok(batch)
    }
}

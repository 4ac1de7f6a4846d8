//! Lists on their way into the log.

use std::collections::VecDeque;

use rapport_events::Position;
use rapport_offline::{LogWriter, ServedList};

use super::polled::Polled;
use crate::dead::DeadLetters;

/// What is on its way into the log.
pub(super) struct Held {
    /// Polled and not yet taken by the writer: it must know a partition's end first.
    pub polled: VecDeque<Polled>,
    pub writer: LogWriter<ServedList>,
}

impl Held {
    pub(super) fn count(&self) -> usize {
        self.polled.len() + self.writer.buffered()
    }

    /// Hands what was polled to the writer, in its order, until one cannot go yet.
    pub(super) fn take_in(&mut self, dead: &DeadLetters) -> Result<(), rapport_offline::Error> {
        while let Some(polled) = self.polled.front() {
            let Position { partition, offset } = polled.position();
            self.writer.take_over(partition)?;
            if let Polled::Dead { key, letter, .. } = polled
                && !dead.bury(key.as_deref(), letter)
            {
                return Ok(());
            }
            match self.polled.pop_front() {
                Some(Polled::List(list)) => self.writer.append(list)?,
                Some(Polled::Nothing(_) | Polled::Dead { .. }) => self.writer.skip(partition, offset),
                None => {}
            }
        }
        Ok(())
    }

    /// Writes what these partitions have. Returns up to where each is done.
    pub(super) fn flush(&mut self, partitions: &[i32]) -> Result<Vec<Position>, rapport_offline::Error> {
        let before = self.writer.buffered();
        let mut done = Vec::new();
        for &partition in partitions {
            done.extend(self.writer.flush(partition)?.map(|offset| Position { partition, offset }));
        }
        let written = (before - self.writer.buffered()) as u64;
        metrics::counter!("rapport_feature_store_served_lists_total", "result" => "kept").increment(written);
        Ok(done)
    }

    /// Forgets partitions: another consumer has them now.
    pub(super) fn release(&mut self, partitions: &[i32]) {
        self.polled.retain(|polled| !partitions.contains(&polled.position().partition));
        partitions.iter().for_each(|&partition| self.writer.release(partition));
    }
}

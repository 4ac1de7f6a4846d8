//! Interactions in the order of histories, more of them than memory may hold: sorted parts on disk, merged.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    path::PathBuf,
};

use crate::Error;

/// Interaction as it was read: everything needed to order it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Raw {
    pub customer: u32,
    pub item: u32,
    /// No number where there is none.
    pub rating: f32,
    /// Of the type, 0 where there is none.
    pub kind: u16,
    pub time: i64,
    pub partition: i32,
    pub offset: i64,
}

/// Bytes of one on disk.
const BYTES: usize = 34;
/// Bytes that an event takes in memory while a data set is made of it: as it was read, and in its history,
/// which may have taken twice what it needs.
pub(super) const EVENT_BYTES: usize = 80;
/// Sorted parts that are merged at once; each has a buffer.
const PARTS: usize = 64;
const BUFFER_BYTES: usize = 1 << 16;

/// How much of the events may be in memory, and where the rest goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    pub bytes: usize,
    /// On a disk: a folder that lies in memory itself saves nothing.
    pub folder: PathBuf,
}

impl Default for Memory {
    fn default() -> Self {
        Self { bytes: 2 << 30, folder: std::env::temp_dir() }
    }
}

impl Memory {
    /// A file without a name: it is gone with the process, however that ends.
    pub(super) fn file(&self) -> Result<File, Error> {
        tempfile::tempfile_in(&self.folder).map_err(Error::file(&self.folder))
    }
}

impl Raw {
    /// By customer, then as a history is: by time, and events of one moment in the order of the log.
    fn place(&self) -> (u32, i64, i32, i64) {
        (self.customer, self.time, self.partition, self.offset)
    }

    fn to_bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..4].copy_from_slice(&self.customer.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.item.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.rating.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.partition.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.time.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.offset.to_le_bytes());
        bytes[32..].copy_from_slice(&self.kind.to_le_bytes());
        bytes
    }

    fn of_bytes(bytes: &[u8; BYTES]) -> Self {
        let short = |at: usize| bytes[at..].first_chunk::<4>().copied().unwrap_or_default();
        let long = |at: usize| bytes[at..].first_chunk::<8>().copied().unwrap_or_default();
        Self {
            customer: u32::from_le_bytes(short(0)),
            item: u32::from_le_bytes(short(4)),
            rating: f32::from_le_bytes(short(8)),
            partition: i32::from_le_bytes(short(12)),
            time: i64::from_le_bytes(long(16)),
            offset: i64::from_le_bytes(long(24)),
            kind: u16::from_le_bytes(bytes[32..].first_chunk().copied().unwrap_or_default()),
        }
    }
}

/// Takes interactions in any order and gives them back in that of histories.
#[derive(Debug)]
pub(super) struct Sorter {
    memory: Memory,
    buffer: Vec<Raw>,
    parts: Vec<File>,
    count: usize,
}

impl Sorter {
    pub fn new(memory: Memory) -> Self {
        Self { memory, buffer: Vec::new(), parts: Vec::new(), count: 0 }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Whether something went to disk.
    pub fn spilled(&self) -> bool {
        !self.parts.is_empty()
    }

    /// # Errors
    /// The disk fails or is full.
    pub fn push(&mut self, raw: Raw) -> Result<(), Error> {
        if self.buffer.len() >= (self.memory.bytes / EVENT_BYTES).max(1) {
            self.spill()?;
        }
        // Doubled when it is full, it might take twice what it may.
        if self.buffer.len() == self.buffer.capacity() {
            let most = (self.memory.bytes / EVENT_BYTES).max(1);
            let more = self.buffer.len().clamp(1024, 1 << 22).min(most - self.buffer.len());
            self.buffer.reserve_exact(more);
        }
        self.buffer.push(raw);
        self.count += 1;
        Ok(())
    }

    fn spill(&mut self) -> Result<(), Error> {
        if self.parts.len() == PARTS {
            let merged = self.memory.file()?;
            let mut to = BufWriter::with_capacity(BUFFER_BYTES, merged);
            let written = |error| Error::file(&self.memory.folder)(error);
            merge(std::mem::take(&mut self.parts), &self.memory, &mut |raw| {
                to.write_all(&raw.to_bytes()).map_err(written)
            })?;
            self.parts.push(rewound(to).map_err(written)?);
        }
        let mut to = BufWriter::with_capacity(BUFFER_BYTES, self.memory.file()?);
        self.buffer.sort_unstable_by_key(Raw::place);
        let written = self.buffer.iter().try_for_each(|raw| to.write_all(&raw.to_bytes())).and_then(|()| rewound(to));
        self.parts.push(written.map_err(Error::file(&self.memory.folder))?);
        self.buffer.clear();
        Ok(())
    }

    /// Hands everything to `each`, in order.
    ///
    /// # Errors
    /// The disk fails or is full, or `each` did.
    pub fn finish(mut self, each: &mut dyn FnMut(Raw) -> Result<(), Error>) -> Result<(), Error> {
        if self.parts.is_empty() {
            self.buffer.sort_unstable_by_key(Raw::place);
            return self.buffer.into_iter().try_for_each(each);
        }
        self.spill()?;
        drop(std::mem::take(&mut self.buffer));
        merge(self.parts, &self.memory, each)
    }
}

fn rewound(to: BufWriter<File>) -> io::Result<File> {
    let mut file = to.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

/// The smallest of the parts' first ones, again and again.
fn merge(parts: Vec<File>, memory: &Memory, each: &mut dyn FnMut(Raw) -> Result<(), Error>) -> Result<(), Error> {
    let failed = |error| Error::file(&memory.folder)(error);
    let mut parts: Vec<_> = parts.into_iter().map(|file| BufReader::with_capacity(BUFFER_BYTES, file)).collect();
    let mut heads: Vec<Option<Raw>> = Vec::with_capacity(parts.len());
    for part in &mut parts {
        heads.push(next(part).map_err(failed)?);
    }
    let mut order: BinaryHeap<_> =
        heads.iter().enumerate().filter_map(|(at, head)| Some(Reverse((head.as_ref()?.place(), at)))).collect();
    while let Some(Reverse((_, at))) = order.pop() {
        let head = match next(&mut parts[at]).map_err(failed)? {
            Some(following) => {
                order.push(Reverse((following.place(), at)));
                heads[at].replace(following)
            }
            None => heads[at].take(),
        };
        if let Some(head) = head {
            each(head)?;
        }
    }
    Ok(())
}

fn next(part: &mut BufReader<File>) -> io::Result<Option<Raw>> {
    let mut bytes = [0; BYTES];
    match part.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(Raw::of_bytes(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_may_be_in_memory_the_order_is_that_of_histories() {
        let raw = |i: u64| {
            let random = i.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
            Raw {
                customer: (random % 17) as u32,
                item: i as u32,
                kind: (i % 5) as u16,
                rating: if i.is_multiple_of(3) { f32::NAN } else { i as f32 },
                time: (random / 17 % 50) as i64 - 25,
                partition: (random / 1000 % 3) as i32,
                offset: i as i64,
            }
        };
        let sorted = |bytes: usize| {
            let mut sorter = Sorter::new(Memory { bytes, ..Memory::default() });
            (0..3_000).for_each(|i| sorter.push(raw(i)).unwrap());
            let (spilled, mut found) = (sorter.spilled(), Vec::new());
            sorter
                .finish(&mut |raw| {
                    found.push((raw.place(), raw.item, raw.kind, raw.rating.to_bits()));
                    Ok(())
                })
                .unwrap();
            (spilled, found)
        };
        let (spilled, whole) = sorted(1 << 20);
        assert!(!spilled && whole.len() == 3_000 && whole.is_sorted_by_key(|(place, ..)| *place));
        // 30 parts, more parts than are merged at once, and one event at a time.
        for bytes in [100 * EVENT_BYTES, 20 * EVENT_BYTES, 1] {
            let (spilled, found) = sorted(bytes);
            assert!(spilled);
            assert_eq!(found, whole);
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let mut sorter = Sorter::new(Memory { bytes: 1, folder: "/nowhere".into() });
        let pushed = (0..3).try_for_each(|offset| {
            sorter.push(Raw { customer: 0, item: 0, rating: 0.0, kind: 0, time: 0, partition: 0, offset })
        });
        assert!(pushed.unwrap_err().to_string().contains("/nowhere"));
    }
}

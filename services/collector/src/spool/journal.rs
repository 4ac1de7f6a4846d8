//! The folder of a spool: segment files that are written at the end and read from the front, and the
//! place up to which they have been sent.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::frame::{self, Next, Spooled};

/// A new segment begins beyond this size: what has been sent is given back in steps of it.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Read at once. More than the largest frame, so that one always fits.
const READ_BYTES: u64 = (frame::BODY_BYTES as u64) + (1 << 20);

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("--spool-dir {path}: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("--spool-dir {path} is in use by another process; each instance needs a folder of its own")]
    InUse { path: PathBuf },
}

/// A place in the journal: behind a whole record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    segment: u64,
    offset: u64,
}

struct Segment {
    number: u64,
    bytes: u64,
}

/// A stretch that was read from the front.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Each with the place behind it.
    pub records: Vec<(Spooled, Place)>,
    /// Bytes that are no records, which stood before, between or after these.
    pub damaged: Vec<Vec<u8>>,
    /// Behind all of it.
    pub end: Option<Place>,
}

/// The journal. Whoever holds it has the folder for itself.
pub struct Journal {
    folder: PathBuf,
    /// Locked while the journal is open.
    _lock: File,
    limit: u64,
    segment_bytes: u64,
    /// Oldest first. What is written goes to the last one.
    segments: VecDeque<Segment>,
    tail: Option<File>,
    head: Place,
    place_file: File,
    records: u64,
    oldest_ms: Option<i64>,
}

impl Journal {
    /// Opens a folder, makes it if need be, and cuts a torn end to the last whole record.
    ///
    /// # Errors
    /// The folder cannot be written, or another process has it.
    pub fn open(folder: &Path, limit: u64) -> Result<Self, SpoolError> {
        Self::open_with(folder, limit, SEGMENT_BYTES)
    }

    pub(super) fn open_with(folder: &Path, limit: u64, segment_bytes: u64) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::Folder { path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let open = |name: &str| {
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(folder.join(name))
                .map_err(failed)
        };
        let lock = open("lock")?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(SpoolError::InUse { path: folder.to_owned() }),
            Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        let place_file = open("place")?;
        let mut journal = Self {
            folder: folder.to_owned(),
            _lock: lock,
            limit,
            segment_bytes: segment_bytes.min(limit),
            segments: VecDeque::new(),
            tail: None,
            head: read_place(&place_file).map_err(failed)?.unwrap_or(Place { segment: 1, offset: 0 }),
            place_file,
            records: 0,
            oldest_ms: None,
        };
        journal.recover().map_err(failed)?;
        Ok(journal)
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.folder.join(format!("{segment:020}.spool"))
    }

    fn recover(&mut self) -> io::Result<()> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".spool")?.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        for (n, number) in numbers.iter().enumerate() {
            if *number < self.head.segment {
                // It was sent, and the process ended before it was removed.
                fs::remove_file(self.path(*number))?;
                continue;
            }
            let bytes = fs::read(self.path(*number))?;
            let from = if *number == self.head.segment { self.head.offset } else { 0 };
            let (records, whole) = survey(&bytes, usize::try_from(from).unwrap_or(usize::MAX));
            let mut length = bytes.len();
            if n + 1 == numbers.len() && whole < length {
                tracing::warn!(
                    segment = number,
                    bytes = length - whole,
                    "the spool ends in a torn record; it is cut off"
                );
                OpenOptions::new().write(true).open(self.path(*number))?.set_len(whole as u64)?;
                length = whole;
            }
            self.records += records;
            self.segments.push_back(Segment { number: *number, bytes: length as u64 });
        }
        match self.segments.front() {
            Some(first) if first.number > self.head.segment => {
                self.head = Place { segment: first.number, offset: 0 };
            }
            None => self.head = Place { segment: self.head.segment + 1, offset: 0 },
            Some(_) => {}
        }
        Ok(())
    }

    /// Bytes on disk, sent ones of the oldest segment included.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Bytes that are not sent yet.
    pub fn unsent_bytes(&self) -> u64 {
        self.bytes().saturating_sub(if self.segments.is_empty() { 0 } else { self.head.offset })
    }

    /// Records that are not sent yet.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// When the oldest unsent record was spooled, as far as is known.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.oldest_ms
    }

    /// Writes frames, in their order, and returns when they are on the disk: how many of them, up to the
    /// first that has no place within the limit.
    ///
    /// # Errors
    /// The disk does not take them. None of them counts as written.
    pub fn append(&mut self, frames: &[Vec<u8>], now_ms: i64) -> io::Result<usize> {
        let mut left = self.limit.saturating_sub(self.bytes());
        let fits = |frame: &&Vec<u8>| {
            let fits = frame.len() as u64 <= left;
            left = left.saturating_sub(frame.len() as u64);
            fits
        };
        let taken = frames.iter().take_while(fits).count();
        if taken == 0 {
            return Ok(0);
        }
        let before = self.roll()?;
        let bytes = frames[..taken].concat();
        let written = self.tail.as_mut().map_or(Ok(()), |tail| tail.write_all(&bytes).and_then(|()| tail.sync_data()));
        if let Err(error) = written {
            // What stands on the disk now is not known. Nothing more is written to this file, and what was
            // not acknowledged is cut off.
            if let Some(tail) = self.tail.take() {
                tail.set_len(before).ok();
            }
            return Err(error);
        }
        if let Some(last) = self.segments.back_mut() {
            last.bytes = before + bytes.len() as u64;
        }
        if self.records == 0 {
            self.oldest_ms = Some(now_ms);
        }
        self.records += taken as u64;
        Ok(taken)
    }

    /// Makes sure that there is a segment to write to; its size.
    fn roll(&mut self) -> io::Result<u64> {
        if let (Some(last), Some(_)) = (self.segments.back(), &self.tail)
            && last.bytes < self.segment_bytes
        {
            return Ok(last.bytes);
        }
        let number = self.segments.back().map_or(self.head.segment, |last| last.number + 1);
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(self.path(number))?;
        file.seek(SeekFrom::Start(0))?;
        // The name itself must survive a power cut.
        File::open(&self.folder)?.sync_all()?;
        self.tail = Some(file);
        self.segments.push_back(Segment { number, bytes: 0 });
        Ok(0)
    }

    /// Reads from the front, without sending it on. `None` when everything has been sent.
    ///
    /// # Errors
    /// The disk does not give it.
    pub fn read(&mut self) -> io::Result<Option<Chunk>> {
        // A segment that has been read to its end makes way for the next one.
        while let Some(first) = self.segments.front()
            && self.head.offset >= first.bytes
            && self.segments.len() > 1
        {
            self.drop_first()?;
        }
        let Some(first) = self.segments.front() else { return Ok(None) };
        let (number, end) = (first.number, first.bytes);
        let from = self.head.offset;
        if from >= end {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let mut file = File::open(self.path(number))?;
        file.seek(SeekFrom::Start(from))?;
        file.take((end - from).min(READ_BYTES)).read_to_end(&mut bytes)?;
        let last = from + bytes.len() as u64 >= end;
        let place = |at: usize| Place { segment: number, offset: from + at as u64 };
        let (mut chunk, mut at) = (Chunk::default(), 0);
        loop {
            let damaged = match frame::next(&bytes, at) {
                Next::Record { spooled, end } => {
                    chunk.records.push((*spooled, place(end)));
                    at = end;
                    continue;
                }
                Next::Damaged(range) => range.end,
                // More of it stands behind what was read now.
                Next::Unfinished if !last && at > 0 => break,
                Next::Unfinished if !last => frame::resume(&bytes, at + 1),
                Next::Unfinished => frame::next_whole(&bytes, at + 1).unwrap_or(bytes.len()),
                Next::End => break,
            };
            chunk.damaged.push(bytes[at..damaged].to_vec());
            at = damaged;
        }
        chunk.end = Some(place(at));
        if let Some((first, _)) = chunk.records.first() {
            self.oldest_ms = Some(first.at_ms);
        }
        Ok(Some(chunk))
    }

    /// Everything before `to` has been sent: `records` of them.
    ///
    /// # Errors
    /// The place cannot be kept. It holds in this process all the same.
    pub fn advance(&mut self, to: Place, records: u64) -> io::Result<()> {
        self.head = self.head.max(to);
        self.records = self.records.saturating_sub(records);
        if self.records == 0 {
            self.oldest_ms = None;
        }
        while let Some(first) = self.segments.front()
            && self.head.segment == first.number
            && self.head.offset >= first.bytes
        {
            self.drop_first()?;
        }
        self.write_place()
    }

    fn drop_first(&mut self) -> io::Result<()> {
        let Some(first) = self.segments.pop_front() else { return Ok(()) };
        if self.segments.is_empty() {
            self.tail = None;
        }
        self.head = Place { segment: first.number + 1, offset: 0 };
        // The place first: a crash between the two leaves a file that is removed at the next start.
        self.write_place()?;
        fs::remove_file(self.path(first.number))
    }

    /// A crash of the machine may lose the newest places: then some records are sent twice, which is
    /// what event ids are for. So the disk is not waited for.
    fn write_place(&self) -> io::Result<()> {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.head.segment.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.head.offset.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..16]);
        bytes[16..].copy_from_slice(&sum.to_le_bytes());
        self.place_file.write_all_at(&bytes, 0)
    }

    /// Keeps bytes that cannot be sent beside the spool, for a person to look at.
    ///
    /// # Errors
    /// The disk does not take them.
    pub fn set_aside(&self, bytes: &[u8]) -> io::Result<PathBuf> {
        let path = self.folder.join(format!("{:020}.corrupt", self.head.segment));
        OpenOptions::new().create(true).append(true).open(&path)?.write_all(bytes)?;
        Ok(path)
    }
}

/// The number of whole records from `from` on, and where the last of them ends.
fn survey(bytes: &[u8], from: usize) -> (u64, usize) {
    let (mut records, mut whole, mut at) = (0, from.min(bytes.len()), from);
    loop {
        match frame::next(bytes, at) {
            Next::Record { end, .. } => {
                records += 1;
                (at, whole) = (end, end);
            }
            Next::Damaged(range) => at = range.end,
            Next::Unfinished => match frame::next_whole(bytes, at + 1) {
                Some(next) => at = next,
                None => return (records, whole),
            },
            Next::End => return (records, whole),
        }
    }
}

/// `None` when there is none, or a torn one: then everything that is there is sent.
fn read_place(file: &File) -> io::Result<Option<Place>> {
    let mut bytes = [0; 20];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(number)
    };
    let whole = crc32fast::hash(&bytes[..16]).to_le_bytes() == bytes[16..];
    Ok(whole.then(|| Place { segment: number(0), offset: number(8) }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rapport_kafka::OwnedRecord;

    use super::*;

    fn frames(range: std::ops::Range<usize>) -> Vec<Vec<u8>> {
        range.map(|n| frame::encode(record(n), n as i64)).collect()
    }

    fn record(n: usize) -> OwnedRecord {
        OwnedRecord { topic: "t".into(), value: Some(format!("{n}").into_bytes()), ..OwnedRecord::default() }
    }

    /// The next records, which then count as sent.
    fn take(journal: &mut Journal) -> Vec<usize> {
        let Some(chunk) = journal.read().unwrap() else { return Vec::new() };
        for bytes in &chunk.damaged {
            journal.set_aside(bytes).unwrap();
        }
        journal.advance(chunk.end.unwrap(), chunk.records.len() as u64).unwrap();
        let number =
            |(spooled, _): (Spooled, Place)| String::from_utf8(spooled.record.value.unwrap()).unwrap().parse().unwrap();
        chunk.records.into_iter().map(number).collect()
    }

    fn take_all(journal: &mut Journal) -> Vec<usize> {
        let mut all = Vec::new();
        loop {
            let some = take(journal);
            if some.is_empty() && journal.read().unwrap().is_none() {
                return all;
            }
            all.extend(some);
        }
    }

    fn segments(folder: &Path) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|end| end == "spool"));
        files.sort();
        files
    }

    #[test]
    fn what_is_appended_is_read_in_order_over_segments_and_starts_and_what_was_sent_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Journal::open_with(folder.path(), 1 << 20, 100).unwrap();
        let mut journal = open();
        for n in 0..20 {
            assert_eq!(journal.append(&frames(n * 5..n * 5 + 5), 9).unwrap(), 5);
        }
        assert!(segments(folder.path()).len() > 3);
        assert_eq!((journal.records(), journal.oldest_ms()), (100, Some(9)));
        let first = take(&mut journal);
        assert_eq!(first[0], 0);
        drop(journal);
        let mut journal = open();
        assert_eq!(journal.records(), 100 - first.len() as u64);
        journal.append(&frames(100..101), 9).unwrap();
        assert_eq!([first, take_all(&mut journal)].concat(), (0..101).collect::<Vec<_>>());
        assert_eq!((journal.records(), journal.bytes(), journal.unsent_bytes()), (0, 0, 0));
        assert!(segments(folder.path()).is_empty(), "what was sent is removed");
        drop(journal);
        let mut journal = open();
        journal.append(&frames(7..8), 9).unwrap();
        assert_eq!(take_all(&mut journal), [7]);
    }

    #[test]
    fn a_full_spool_takes_no_more_and_takes_again_when_something_was_sent() {
        let folder = tempfile::tempdir().unwrap();
        let one = frames(10..11)[0].len();
        let mut journal = Journal::open_with(folder.path(), (one * 10) as u64, (one * 2) as u64).unwrap();
        assert_eq!(journal.append(&frames(10..25), 9).unwrap(), 10, "up to its limit");
        assert_eq!(journal.append(&frames(30..31), 9).unwrap(), 0);
        assert_eq!(take(&mut journal).len(), 10);
        assert_eq!(journal.append(&frames(30..31), 9).unwrap(), 1);
        assert_eq!(take_all(&mut journal), [30]);
    }

    #[test]
    fn two_processes_cannot_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = Journal::open(folder.path(), 1 << 20).unwrap();
        assert!(matches!(Journal::open(folder.path(), 1 << 20), Err(SpoolError::InUse { .. })));
        drop(first);
        assert!(Journal::open(folder.path(), 1 << 20).is_ok());
    }

    #[test]
    fn a_damaged_record_is_set_aside_and_the_others_are_sent() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), 1 << 20).unwrap();
        journal.append(&frames(1..4), 9).unwrap();
        drop(journal);
        let segment = &segments(folder.path())[0];
        let mut bytes = fs::read(segment).unwrap();
        let second = frames(1..2)[0].len();
        bytes[second + 13] ^= 1;
        fs::write(segment, &bytes).unwrap();
        let mut journal = Journal::open(folder.path(), 1 << 20).unwrap();
        assert_eq!(take_all(&mut journal), [1, 3]);
        let corrupt = folder.path().join("00000000000000000002.corrupt");
        assert_eq!(fs::read(&corrupt).unwrap(), bytes[second..second * 2]);
    }

    proptest! {
        #[test]
        fn a_crash_at_any_byte_of_the_end_keeps_every_whole_record_and_the_spool_goes_on(
            before in 1usize..6, torn in 0usize..6, cut in any::<prop::sample::Index>(), garbage in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut journal = Journal::open(folder.path(), 1 << 20).unwrap();
            journal.append(&frames(0..before), 9).unwrap();
            drop(journal);
            // A write of further records that was cut at some byte, or left something else behind.
            let more = frames(before..before + torn);
            let written = more.concat();
            let cut = cut.index(written.len() + 1);
            let mut tail = written[..cut].to_vec();
            if cut < written.len() {
                tail.extend(&garbage);
            }
            let mut file = OpenOptions::new().append(true).open(&segments(folder.path())[0]).unwrap();
            file.write_all(&tail).unwrap();
            // What was left behind may by chance be just what was missing: then that was written too.
            let arrived = written.iter().zip(&tail).take_while(|(meant, is)| meant == is).count();
            let mut end = 0;
            let whole = more.iter().take_while(|frame| { end += frame.len(); end <= arrived }).count();

            let mut journal = Journal::open(folder.path(), 1 << 20).unwrap();
            prop_assert_eq!(journal.records(), (before + whole) as u64);
            journal.append(&frames(90..92), 9).unwrap();
            let expected: Vec<_> = (0..before + whole).chain(90..92).collect();
            prop_assert_eq!(take_all(&mut journal), expected);
        }

        #[test]
        fn whatever_stands_in_the_folder_it_opens_and_ends(
            files in prop::collection::vec((0u64..5, prop::collection::vec(any::<u8>(), 0..60)), 0..4), place: Vec<u8>,
        ) {
            let folder = tempfile::tempdir().unwrap();
            for (number, bytes) in &files {
                fs::write(folder.path().join(format!("{number:020}.spool")), bytes).unwrap();
            }
            fs::write(folder.path().join("place"), place).unwrap();
            let mut journal = Journal::open(folder.path(), 1 << 20).unwrap();
            journal.append(&frames(0..1), 9).unwrap();
            prop_assert_eq!(take_all(&mut journal), [0]);
        }
    }
}

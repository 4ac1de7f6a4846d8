//! The kept sums on disk: one file a tenant, replaced whole, read only when every byte of it is as written.
//!
//! ```text
//! magic and version | length of the header, u64 | header, JSON
//! customers: length of the id, u32 | id | events, u32 | 24 bytes an event
//! upper triangle of F'F, F'Y: f64 | SHA-256 of all before
//! ```
//! Numbers are little-endian.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
};

use rapport_offline::Place;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::state::{Bounds, EVENT_BYTES, History, Identity, Kept, Taken};
use crate::{Error, models::ridge::Sums};

/// Another layout gets another number, and is not read.
const MAGIC: &[u8; 16] = b"rapport-sums\0\0\0\x01";
const HASH_BYTES: u64 = 32;

#[derive(Serialize, Deserialize)]
struct Header {
    identity: Identity,
    place: Place,
    items: Vec<String>,
    customers: usize,
}

struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes everything under a temporary name and gives it its own at the end.
///
/// # Errors
/// The disk fails or is full: what was kept before stays.
pub(super) fn save(path: &Path, kept: &Kept) -> Result<(), Error> {
    let beside = path.with_extension("partial");
    let written = File::create(&beside).and_then(|file| {
        let mut to = Hashing { inner: BufWriter::with_capacity(1 << 20, file), hash: Sha256::new() };
        write(&mut to, kept)?;
        to.inner.write_all(&to.hash.finalize())?;
        to.inner.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    });
    written.map_err(Error::file(&beside))?;
    fs::rename(&beside, path).map_err(Error::file(path))
}

fn write(to: &mut impl Write, kept: &Kept) -> io::Result<()> {
    let customers = kept.customers.iter().filter(|(_, history)| !history.folded.is_empty());
    let header = Header {
        identity: kept.identity.clone(),
        place: kept.place.clone(),
        items: kept.items.clone(),
        customers: customers.clone().count(),
    };
    let header = serde_json::to_vec(&header)?;
    to.write_all(MAGIC)?;
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(&header)?;
    for (id, history) in customers {
        to.write_all(&(id.len() as u32).to_le_bytes())?;
        to.write_all(id.as_bytes())?;
        to.write_all(&(history.folded.len() as u32).to_le_bytes())?;
        for Taken { time, partition, offset, item } in &history.folded {
            to.write_all(&time.to_le_bytes())?;
            to.write_all(&offset.to_le_bytes())?;
            to.write_all(&partition.to_le_bytes())?;
            to.write_all(&item.to_le_bytes())?;
        }
    }
    let (decays, items, room) = (kept.identity.decays.len(), kept.items.len(), kept.sums.items());
    // Only items that there are, and of the symmetric matrix the upper triangle.
    let rows = (0..decays).flat_map(|i| (0..items.min(room)).map(move |k| i * room + k));
    for row in rows.clone() {
        for column in rows.clone().skip_while(|&column| column < row) {
            to.write_all(&kept.sums.gram()[row * decays * room + column].to_le_bytes())?;
        }
    }
    for row in rows {
        for value in &kept.sums.targets()[row * room..][..items.min(room)] {
            to.write_all(&value.to_le_bytes())?;
        }
    }
    Ok(())
}

/// What was kept; `None` where there is no file.
///
/// # Errors
/// It cannot be read, or is not as it was written.
pub(super) fn load(path: &Path, bounds: Bounds) -> Result<Option<Kept>, Error> {
    match File::open(path) {
        Ok(file) => read(file, bounds).map(Some).map_err(Error::file(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(path)(error)),
    }
}

fn broken(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Twice through: nothing is believed before the last byte is known to be right.
fn read(file: File, bounds: Bounds) -> io::Result<Kept> {
    let length = file.metadata()?.len();
    let Some(body) = length.checked_sub(HASH_BYTES) else { return Err(broken("the file is cut off")) };
    let mut all = Hashing { inner: io::sink(), hash: Sha256::new() };
    let mut from = BufReader::with_capacity(1 << 20, file);
    io::copy(&mut from.by_ref().take(body), &mut all)?;
    let mut expected = [0; HASH_BYTES as usize];
    from.read_exact(&mut expected)?;
    if all.hash.finalize()[..] != expected {
        return Err(broken("its checksum is another one: the file is damaged or was cut off"));
    }
    io::Seek::rewind(&mut from)?;
    let mut from = from.take(body);
    if bytes::<16>(&mut from)? != *MAGIC {
        return Err(broken("it has another layout"));
    }
    let header = u64::from_le_bytes(bytes(&mut from)?) as usize;
    let header: Header = serde_json::from_slice(&some(&mut from, header)?)?;
    let mut customers = BTreeMap::new();
    for _ in 0..header.customers {
        let id = u32::from_le_bytes(bytes(&mut from)?) as usize;
        let id = String::from_utf8(some(&mut from, id)?).map_err(|_| broken("an id is no text"))?;
        let events = u32::from_le_bytes(bytes(&mut from)?) as usize;
        let folded = some(&mut from, events * EVENT_BYTES)?.chunks_exact(EVENT_BYTES).map(taken).collect();
        customers.insert(id, History::of(folded));
    }
    let (decays, items) = (header.identity.decays.len(), header.items.len());
    let mut sums = Sums::new(items, &header.identity.decays).map_err(|e| broken(&e.to_string()))?;
    let n = decays * items;
    let (gram, targets) = sums.matrices();
    let number = |from: &mut io::Take<BufReader<File>>| Ok::<_, io::Error>(f64::from_le_bytes(bytes(from)?));
    for row in 0..n {
        for column in row..n {
            let value = number(&mut from)?;
            gram[row * n + column] = value;
            gram[column * n + row] = value;
        }
    }
    for value in targets {
        *value = number(&mut from)?;
    }
    Ok(Kept::from_parts(header.identity, bounds, header.place, header.items, customers, sums))
}

fn bytes<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn some(from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Grows with what is there, whatever the length says.
    from.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() == length { Ok(bytes) } else { Err(broken("it ends too early")) }
}

fn taken(bytes: &[u8]) -> Taken {
    let long = |at: usize| bytes[at..].first_chunk().copied().map(i64::from_le_bytes).unwrap_or_default();
    let short = |at: usize| bytes[at..].first_chunk().copied().map(u32::from_le_bytes).unwrap_or_default();
    Taken { time: long(0), offset: long(8), partition: short(16) as i32, item: short(20) }
}

//! An HTTP body within its limits: read with a bound and a deadline, inflated with a bound. Memory is
//! asked for as a body grows, never by what its sender says that it will be.

use std::{
    io::{self, BufRead, BufReader, Read},
    time::Duration,
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use futures::StreamExt as _;

/// Memory is asked for in steps of at least this.
pub const STEP: usize = 64 << 10;
/// Encodings that may be laid over one another: more is an attempt, not a client.
const MOST_ENCODINGS: usize = 2;
/// What a zstd frame may make its reader remember: 8 MiB, as RFC 9659 says for HTTP.
const ZSTD_WINDOW_LOG: u32 = 23;
const BROTLI_BUFFER: usize = 8 << 10;
const ACCEPTED: &str = "gzip, deflate, br or zstd, at most two of them";

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the body is larger than {limit} bytes when inflated")]
    InflatesTooLarge { limit: usize },
    #[error("the body is not {0}, as its content-encoding says: {1}")]
    NotPacked(Encoding, String),
    #[error("content-encoding: must be {ACCEPTED}, is {0:?}")]
    Encoding(String),
    #[error("the body did not arrive within {0:?}")]
    TooSlow(Duration),
    #[error("the body broke off: {0}")]
    Broken(String),
    /// There is no memory for it now.
    #[error("there is no room for the body now")]
    NoRoom,
}

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Gzip,
    /// Zlib's format, as HTTP says, or the bare stream, as some clients send.
    Deflate,
    Brotli,
    Zstd,
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        })
    }
}

/// Reads a `content-encoding`: the encodings in the order in which they were applied.
///
/// # Errors
/// One that is not known, or too many.
pub fn encodings(content_encoding: Option<&[u8]>) -> Result<Vec<Encoding>, BodyError> {
    let Some(text) = content_encoding else { return Ok(Vec::new()) };
    let text = String::from_utf8_lossy(text);
    let refused = || BodyError::Encoding(text.chars().take(40).collect());
    let mut found = Vec::new();
    for name in text.split(',').map(str::trim) {
        found.push(match name.to_ascii_lowercase().as_str() {
            "" | "identity" => continue,
            "gzip" | "x-gzip" => Encoding::Gzip,
            "deflate" => Encoding::Deflate,
            "br" => Encoding::Brotli,
            "zstd" => Encoding::Zstd,
            _ => return Err(refused()),
        });
        if found.len() > MOST_ENCODINGS {
            return Err(refused());
        }
    }
    Ok(found)
}

/// Reads a body of at most `limit` bytes that must be there within `patience`. `room` is asked before
/// the body takes more memory, with its size until then.
///
/// # Errors
/// It is larger, slower, or breaks off, or there is no room.
pub async fn read(
    body: Body,
    limit: usize,
    patience: Duration,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Bytes, BodyError> {
    let whole = async {
        let mut chunks = body.into_data_stream();
        // Most bodies are one chunk, which is not copied.
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| BodyError::Broken(error.to_string()))?;
            let size = first.len().max(rest.len()) + chunk.len();
            if size > limit {
                return Err(BodyError::TooLarge { limit });
            }
            if !room(size) {
                return Err(BodyError::NoRoom);
            }
            if first.is_empty() && rest.is_empty() {
                first = chunk;
            } else {
                if rest.is_empty() {
                    rest.extend_from_slice(&first);
                }
                rest.extend_from_slice(&chunk);
            }
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    };
    tokio::time::timeout(patience, whole).await.unwrap_or(Err(BodyError::TooSlow(patience)))
}

/// Unpacks a body to at most `limit` bytes. `room` is asked before it grows, with its size to be.
///
/// # Errors
/// It is not what its encodings say, ends early, or is larger, or there is no room.
pub fn inflate(
    packed: &[u8],
    encodings: &[Encoding],
    limit: usize,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Bytes, BodyError> {
    let outermost = encodings.last().copied().unwrap_or(Encoding::Gzip);
    let broken = |error: io::Error| BodyError::NotPacked(outermost, error.to_string());
    // The last one applied comes off first.
    let mut reader: Box<dyn Read + '_> = Box::new(packed);
    for encoding in encodings.iter().rev() {
        reader = unpacked(*encoding, reader).map_err(broken)?;
    }
    let mut plain = Vec::new();
    let mut step = packed.len().saturating_mul(4).max(STEP);
    loop {
        // One byte over the limit tells a body that is too large from one that just fits.
        step = step.min(limit + 1 - plain.len());
        if !room(plain.len() + step) {
            return Err(BodyError::NoRoom);
        }
        plain.reserve_exact(step);
        let bound = u64::try_from(step).unwrap_or(u64::MAX);
        let read = reader.by_ref().take(bound).read_to_end(&mut plain).map_err(broken)?;
        if plain.len() > limit {
            return Err(BodyError::InflatesTooLarge { limit });
        }
        if read < step {
            return Ok(plain.into());
        }
        step = plain.len();
    }
}

fn unpacked<'a>(encoding: Encoding, packed: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match encoding {
        Encoding::Gzip => Box::new(MultiGzDecoder::new(packed)),
        Encoding::Brotli => Box::new(brotli::Decompressor::new(packed, BROTLI_BUFFER)),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(packed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Encoding::Deflate => {
            let mut packed = BufReader::new(packed);
            if is_zlib(packed.fill_buf()?) {
                Box::new(ZlibDecoder::new(packed))
            } else {
                Box::new(DeflateDecoder::new(packed))
            }
        }
    })
}

/// Whether the bytes begin with zlib's header (RFC 1950, 2.2): method 8, and a multiple of 31.
fn is_zlib(bytes: &[u8]) -> bool {
    matches!(bytes, [method, flags, ..] if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);
    const ALL: [Encoding; 4] = [Encoding::Gzip, Encoding::Deflate, Encoding::Brotli, Encoding::Zstd];

    fn pack(encoding: Encoding, plain: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Brotli => {
                let mut packed = Vec::new();
                brotli::CompressorWriter::new(&mut packed, 4096, 5, 22).write_all(plain).unwrap();
                packed
            }
            Encoding::Zstd => zstd::stream::encode_all(plain, 3).unwrap(),
        }
    }

    fn open(packed: &[u8], encodings: &[Encoding], limit: usize) -> Result<Bytes, BodyError> {
        inflate(packed, encodings, limit, |_| true)
    }

    #[test]
    fn a_small_body_that_inflates_without_end_is_stopped_at_the_limit() {
        for encoding in ALL {
            let bomb = pack(encoding, &vec![0; 50 << 20]);
            assert!(bomb.len() < 60_000, "{encoding}");
            let mut asked = 0;
            let stopped = inflate(&bomb, &[encoding], 1 << 20, |bytes| {
                asked = asked.max(bytes);
                true
            });
            assert_eq!(stopped, Err(BodyError::InflatesTooLarge { limit: 1 << 20 }), "{encoding}");
            assert_eq!(asked, (1 << 20) + 1, "no more memory than the limit is asked for");
            let just = pack(encoding, &vec![7; 1 << 20]);
            assert_eq!(open(&just, &[encoding], 1 << 20).unwrap().len(), 1 << 20);
        }
        let twice = pack(Encoding::Gzip, &pack(Encoding::Gzip, &vec![0; 50 << 20]));
        let stopped = open(&twice, &[Encoding::Gzip, Encoding::Gzip], 1 << 20);
        assert_eq!(stopped, Err(BodyError::InflatesTooLarge { limit: 1 << 20 }));
    }

    #[test]
    fn a_body_takes_no_memory_that_it_was_not_given() {
        let packed = pack(Encoding::Zstd, &vec![0; 1 << 20]);
        let mut given = Vec::new();
        let refused = inflate(&packed, &[Encoding::Zstd], 4 << 20, |bytes| {
            given.push(bytes);
            bytes <= 200_000
        });
        assert_eq!(refused, Err(BodyError::NoRoom));
        assert_eq!(given, [STEP, 2 * STEP, 4 * STEP], "it is asked for in growing steps");
    }

    #[test]
    fn a_zstd_frame_that_wants_a_huge_window_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&vec![1; 1 << 20]).unwrap();
        let packed = encoder.finish().unwrap();
        assert!(matches!(open(&packed, &[Encoding::Zstd], 4 << 20), Err(BodyError::NotPacked(Encoding::Zstd, _))));
    }

    #[test]
    fn an_encoding_is_known_by_its_name() {
        assert_eq!(encodings(None), Ok(vec![]));
        assert_eq!(encodings(Some(b"identity")), Ok(vec![]));
        assert_eq!(encodings(Some(b" GZIP ")), Ok(vec![Encoding::Gzip]));
        assert_eq!(encodings(Some(b"deflate, br")), Ok(vec![Encoding::Deflate, Encoding::Brotli]));
        assert_eq!(encodings(Some(b"zstd")), Ok(vec![Encoding::Zstd]));
        let error = encodings(Some(b"lzw")).unwrap_err().to_string();
        assert_eq!(error, "content-encoding: must be gzip, deflate, br or zstd, at most two of them, is \"lzw\"");
        assert!(encodings(Some(b"gzip, gzip, gzip")).is_err());
    }

    #[test]
    fn deflate_is_understood_with_and_without_zlibs_header() {
        let plain = b"{\"batch\": []}".repeat(20);
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::default());
        bare.write_all(&plain).unwrap();
        assert_eq!(open(&bare.finish().unwrap(), &[Encoding::Deflate], 1000).unwrap(), plain);
        assert_eq!(open(&pack(Encoding::Deflate, &plain), &[Encoding::Deflate], 1000).unwrap(), plain);
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_whatever_its_chunks() {
        let chunks = |sizes: &'static [usize]| {
            Body::from_stream(futures::stream::iter(
                sizes.iter().map(|size| Ok::<_, io::Error>(Bytes::from(vec![b'x'; *size]))),
            ))
        };
        let read = async |sizes| read(chunks(sizes), 10, PATIENCE, |_| true).await;
        assert_eq!(read(&[4, 4, 2]).await.unwrap().len(), 10);
        assert_eq!(read(&[10]).await.unwrap().len(), 10);
        assert_eq!(read(&[]).await.unwrap().len(), 0);
        assert_eq!(read(&[4, 4, 3]).await, Err(BodyError::TooLarge { limit: 10 }));
        assert_eq!(read(&[11]).await, Err(BodyError::TooLarge { limit: 10 }));
        let no_room = super::read(chunks(&[4, 4, 2]), 10, PATIENCE, |bytes| bytes < 8).await;
        assert_eq!(no_room, Err(BodyError::NoRoom));
    }

    #[tokio::test]
    async fn a_body_that_never_comes_is_given_up() {
        let never = Body::from_stream(futures::stream::pending::<Result<Bytes, io::Error>>());
        let patience = Duration::from_millis(10);
        assert_eq!(read(never, 10, patience, |_| true).await, Err(BodyError::TooSlow(patience)));
    }

    fn any_encodings() -> impl Strategy<Value = Vec<Encoding>> {
        prop::collection::vec(prop::sample::select(ALL.as_slice()), 1..=2)
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_never_more_than_the_limit_and_no_panic(bytes: Vec<u8>, over in any_encodings()) {
            prop_assert!(open(&bytes, &over, 1000).map_or(true, |plain| plain.len() <= 1000));
            prop_assert!(encodings(Some(&bytes)).is_ok() || !bytes.is_empty());
        }

        #[test]
        fn what_was_packed_is_unpacked_and_what_was_cut_off_is_no_other_body(
            plain: Vec<u8>, over in any_encodings(), cut in 1usize..20
        ) {
            let packed = over.iter().fold(plain.clone(), |bytes, encoding| pack(*encoding, &bytes));
            prop_assert_eq!(open(&packed, &over, plain.len()).unwrap(), &plain);
            let short = &packed[..packed.len() - cut.min(packed.len())];
            // The checksum at the end may be what is missing.
            if let Ok(rest) = open(short, &over, 1 << 20) {
                prop_assert!(plain.starts_with(&rest));
            }
        }
    }
}

//! An HTTP body within its limits: read with a bound and a deadline, inflated with a bound.

use std::{io::Read as _, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use futures::StreamExt as _;

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the body is larger than {limit} bytes when inflated")]
    InflatesTooLarge { limit: usize },
    #[error("the body is not gzip, as its content-encoding says: {0}")]
    NotGzip(String),
    #[error("content-encoding: must be gzip or none, is {0:?}")]
    Encoding(String),
    #[error("the body did not arrive within {0:?}")]
    TooSlow(Duration),
    #[error("the body broke off: {0}")]
    Broken(String),
}

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Plain,
    Gzip,
}

impl Encoding {
    /// # Errors
    /// An encoding that is neither gzip nor none.
    pub fn parse(content_encoding: Option<&[u8]>) -> Result<Self, BodyError> {
        let name = String::from_utf8_lossy(content_encoding.unwrap_or_default());
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Plain),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            _ => Err(BodyError::Encoding(name.chars().take(40).collect())),
        }
    }
}

/// Reads a body of at most `limit` bytes that must be there within `patience`.
///
/// # Errors
/// It is larger, slower, or breaks off.
pub async fn read(body: Body, limit: usize, patience: Duration) -> Result<Bytes, BodyError> {
    let whole = async {
        let mut chunks = body.into_data_stream();
        // Most bodies are one chunk, which is not copied.
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| BodyError::Broken(error.to_string()))?;
            if first.len().max(rest.len()) + chunk.len() > limit {
                return Err(BodyError::TooLarge { limit });
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

/// Inflates a gzip body (of one member or several) to at most `limit` bytes.
///
/// # Errors
/// It is not gzip, ends early, or is larger.
pub fn inflate(packed: &[u8], limit: usize) -> Result<Bytes, BodyError> {
    let mut plain = Vec::with_capacity(packed.len().saturating_mul(4).min(limit));
    // One byte over the limit tells a body that is too large from one that just fits.
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(packed)
        .take(bound)
        .read_to_end(&mut plain)
        .map_err(|error| BodyError::NotGzip(error.to_string()))?;
    if plain.len() > limit {
        return Err(BodyError::InflatesTooLarge { limit });
    }
    Ok(plain.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_small_body_that_inflates_without_end_is_stopped_at_the_limit() {
        let bomb = gzip(&vec![0; 50 << 20]);
        assert!(bomb.len() < 60_000);
        assert_eq!(inflate(&bomb, 1 << 20), Err(BodyError::InflatesTooLarge { limit: 1 << 20 }));
        let just = gzip(&vec![7; 1 << 20]);
        assert_eq!(inflate(&just, 1 << 20).unwrap().len(), 1 << 20);
    }

    #[test]
    fn an_encoding_is_known_by_its_name() {
        assert_eq!(Encoding::parse(None), Ok(Encoding::Plain));
        assert_eq!(Encoding::parse(Some(b" GZIP ")), Ok(Encoding::Gzip));
        assert_eq!(Encoding::parse(Some(b"br")), Err(BodyError::Encoding("br".into())));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_whatever_its_chunks() {
        let chunks = |sizes: &'static [usize]| {
            Body::from_stream(futures::stream::iter(
                sizes.iter().map(|size| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; *size]))),
            ))
        };
        assert_eq!(read(chunks(&[4, 4, 2]), 10, PATIENCE).await.unwrap().len(), 10);
        assert_eq!(read(chunks(&[10]), 10, PATIENCE).await.unwrap().len(), 10);
        assert_eq!(read(chunks(&[]), 10, PATIENCE).await.unwrap().len(), 0);
        assert_eq!(read(chunks(&[4, 4, 3]), 10, PATIENCE).await, Err(BodyError::TooLarge { limit: 10 }));
        assert_eq!(read(chunks(&[11]), 10, PATIENCE).await, Err(BodyError::TooLarge { limit: 10 }));
    }

    #[tokio::test]
    async fn a_body_that_never_comes_is_given_up() {
        let never = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let patience = Duration::from_millis(10);
        assert_eq!(read(never, 10, patience).await, Err(BodyError::TooSlow(patience)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_gzip_and_no_panic(bytes: Vec<u8>) {
            prop_assert!(inflate(&bytes, 1000).map_or(true, |plain| plain.len() <= 1000));
            prop_assert!(Encoding::parse(Some(&bytes)).is_ok() || !bytes.is_empty());
        }

        #[test]
        fn what_was_packed_is_inflated(plain: Vec<u8>, cut in 1usize..20) {
            let packed = gzip(&plain);
            prop_assert_eq!(inflate(&packed, plain.len()).unwrap(), plain);
            let short = &packed[..packed.len() - cut.min(packed.len())];
            prop_assert!(short.is_empty() || matches!(inflate(short, 1 << 20), Err(BodyError::NotGzip(_))));
        }
    }
}

//! Where the offline log lies: a folder, or a bucket that speaks S3.

use std::{path::PathBuf, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
    local::LocalFileSystem,
    path::Path,
    prefix::PrefixStore,
};

use crate::{Error, OfflineArgs};

/// One attempt at one request, with its body.
const REQUEST: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(3);
/// Attempts go on for so long; then the caller hears of it, and waits or gives up as it sees fit.
const RETRIES: RetryConfig = RetryConfig {
    backoff: BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(2), base: 2.0 },
    max_retries: 4,
    retry_timeout: Duration::from_secs(10),
};

/// What a URL of the log names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    Folder(PathBuf),
    S3 { bucket: String, prefix: Path },
}

impl Location {
    /// # Errors
    /// A scheme that is not built in, or no bucket.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Location { at: url.to_owned(), reason };
        match url.split_once("://") {
            None => Ok(Self::Folder(url.into())),
            Some(("file", path)) => Ok(Self::Folder(path.into())),
            Some(("s3", rest)) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() || bucket.contains(['@', ':', '?']) {
                    return Err(wrong("names no bucket; it is s3://<bucket>/<prefix>".into()));
                }
                let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|e| wrong(e.to_string()))?;
                Ok(Self::S3 { bucket: bucket.to_owned(), prefix })
            }
            Some((scheme, _)) => {
                Err(wrong(format!("{scheme}:// is not built in; give a folder or s3://<bucket>/<prefix>")))
            }
        }
    }
}

/// The store of a log.
///
/// # Errors
/// A place that this build does not know, or one that is wrong. A bucket is not asked for here.
pub(crate) fn open(args: &OfflineArgs) -> Result<Arc<dyn ObjectStore>, Error> {
    let wrong = |reason: String| Error::Location { at: args.offline_url.clone(), reason };
    match Location::parse(&args.offline_url)? {
        Location::Folder(folder) => {
            std::fs::create_dir_all(&folder).map_err(|e| wrong(e.to_string()))?;
            let local = LocalFileSystem::new_with_prefix(&folder).map_err(|e| wrong(e.to_string()))?;
            Ok(Arc::new(local.with_fsync(args.offline_fsync)))
        }
        Location::S3 { bucket, prefix } => {
            let store = bucket_of(&bucket, |name| std::env::var(name).ok()).map_err(wrong)?;
            Ok(if prefix.as_ref().is_empty() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) })
        }
    }
}

/// The bucket, by the variables that every client of S3 knows.
fn bucket_of(bucket: &str, variable: impl Fn(&str) -> Option<String>) -> Result<AmazonS3, String> {
    let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
    let plain_is_fine = variable("AWS_ALLOW_HTTP").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if let Some(endpoint) = endpoint.filter(|endpoint| endpoint.starts_with("http://") && !plain_is_fine) {
        return Err(format!("{endpoint} is not encrypted; AWS_ALLOW_HTTP=true allows that"));
    }
    // Nobody else may have chosen who encrypts; whoever has is right.
    rustls::crypto::ring::default_provider().install_default().ok();
    let own = |key: ClientConfigKey, value: Duration| (AmazonS3ConfigKey::Client(key), format!("{}s", value.as_secs()));
    let (timeout, connect) = (own(ClientConfigKey::Timeout, REQUEST), own(ClientConfigKey::ConnectTimeout, CONNECT));
    AmazonS3Builder::from_env()
        .with_config(timeout.0, timeout.1)
        .with_config(connect.0, connect.1)
        .with_retry(RETRIES)
        .with_bucket_name(bucket)
        .build()
        .map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_folder_or_a_bucket_with_a_prefix() {
        let s3 = |bucket: &str, prefix: &str| Location::S3 { bucket: bucket.into(), prefix: Path::from(prefix) };
        assert_eq!(Location::parse("/var/lib/log").unwrap(), Location::Folder("/var/lib/log".into()));
        assert_eq!(Location::parse("file:///var/lib/log").unwrap(), Location::Folder("/var/lib/log".into()));
        assert_eq!(Location::parse("s3://logs/of/shop/").unwrap(), s3("logs", "of/shop"));
        assert_eq!(Location::parse("s3://logs").unwrap(), s3("logs", ""));
        for wrong in ["s3://", "s3:///x", "s3://key:secret@logs/x", "gs://logs", "s3://logs/a//b"] {
            let error = Location::parse(wrong).unwrap_err();
            assert!(error.to_string().contains(wrong) && !error.retryable(), "{error}");
        }
    }

    #[test]
    fn an_endpoint_without_encryption_needs_leave() {
        let with = |allow: Option<&str>| {
            bucket_of("logs", |name| match name {
                "AWS_ENDPOINT_URL" => Some("http://10.0.0.1:9000".into()),
                "AWS_ALLOW_HTTP" => allow.map(str::to_owned),
                _ => None,
            })
        };
        for refused in [None, Some("false")] {
            let error = with(refused).unwrap_err();
            assert!(error.contains("http://10.0.0.1:9000") && error.contains("AWS_ALLOW_HTTP=true"), "{error}");
        }
        assert!(with(Some("true")).is_ok());
    }
}

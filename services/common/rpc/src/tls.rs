//! TLS of a server: its certificate, whose clients it lets in, and both again when the files change.
//! Connections that are open stay open; the next handshake uses the new certificate.

use std::{
    fmt,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use rapport_runtime::Lifecycle;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(2);
/// A chain of certificates takes a few kilobytes; a bundle of many authorities a few hundred.
const FILE_BYTES: u64 = 4 << 20;

/// TLS of all ports that serve data; the port of probes and metrics stays plain.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// The server's certificate and the chain behind it, PEM. With it, the ports of data speak TLS only
    #[arg(long, env = "RAPPORT_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The private key of --tls-cert, PEM
    #[arg(long, env = "RAPPORT_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Authorities of clients, PEM. With it, only clients with a certificate of theirs are let in
    #[arg(long, env = "RAPPORT_TLS_CLIENT_CA", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
}

/// Why the server cannot speak TLS. Names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: {reason}")]
    File { path: PathBuf, reason: String },
    #[error("--tls-cert and --tls-key must both be given")]
    Half,
    #[error("the certificate {cert} and the key {key} cannot be used together: {source}")]
    Pair { cert: PathBuf, key: PathBuf, source: rustls::Error },
}

/// The files of a server that speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// What stands in the files.
#[derive(PartialEq, Eq)]
struct Texts {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// A server's TLS as it stands now. Cheap to clone; all clones see a new certificate.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    files: Files,
    config: ArcSwap<ServerConfig>,
    /// Of what was last looked at; `None` when that could not be read.
    seen: Mutex<Option<Texts>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.0.files).finish()
    }
}

/// What a look at the files gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    Unchanged,
    Reloaded,
    /// The certificate from before stays.
    Failed,
}

impl Tls {
    /// Reads the files; `None` when TLS is not asked for.
    ///
    /// # Errors
    /// A file that cannot be read or used.
    pub fn load(args: &TlsArgs) -> Result<Option<Self>, TlsError> {
        let files = match (&args.tls_cert, &args.tls_key) {
            (None, None) if args.tls_client_ca.is_none() => return Ok(None),
            (Some(cert), Some(key)) => {
                Files { cert: cert.clone(), key: key.clone(), client_ca: args.tls_client_ca.clone() }
            }
            _ => return Err(TlsError::Half),
        };
        let texts = files.read()?;
        let config = ArcSwap::from_pointee(files.config(&texts)?);
        Ok(Some(Self(Arc::new(Shared { files, config, seen: Mutex::new(Some(texts)) }))))
    }

    /// For the next handshake.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.config.load_full())
    }

    /// Reads the files again when they have changed. While they do not fit together (one of them is
    /// written, the other not yet), the certificate from before stays.
    pub fn reload(&self) -> Reload {
        let shared = &self.0;
        let texts = shared.files.read();
        let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if texts.as_ref().ok() == seen.as_ref() {
            return Reload::Unchanged;
        }
        let config = texts.as_ref().map(|texts| shared.files.config(texts));
        let outcome = match config {
            Ok(Ok(config)) => {
                shared.config.store(Arc::new(config));
                tracing::info!(cert = %shared.files.cert.display(), "the certificate was read again");
                Reload::Reloaded
            }
            Ok(Err(error)) => failed(&error),
            Err(error) => failed(error),
        };
        *seen = texts.ok();
        let label = if outcome == Reload::Reloaded { "reloaded" } else { "failed" };
        metrics::counter!("rapport_tls_reloads_total", "outcome" => label).increment(1);
        outcome
    }

    /// Looks at the files now and then, until a drain.
    pub async fn follow(&self, lifecycle: &Lifecycle) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(RELOAD_EVERY) => {}
                () = lifecycle.drain_requested() => return,
            }
            off_the_worker(|| self.reload());
        }
    }
}

/// Reads and parses files where that does not hold up other tasks.
pub fn off_the_worker<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let can_move = Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if can_move { tokio::task::block_in_place(work) } else { work() }
}

fn failed(error: &TlsError) -> Reload {
    tracing::error!(%error, "the certificate cannot be read again; the one from before stays");
    Reload::Failed
}

impl Files {
    fn read(&self) -> Result<Texts, TlsError> {
        Ok(Texts {
            cert: read(&self.cert)?,
            key: read(&self.key)?,
            client_ca: self.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn config(&self, texts: &Texts) -> Result<ServerConfig, TlsError> {
        let chain = certificates(&self.cert, &texts.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&texts.key).map_err(|error| not_pem(&self.key, &error))?;
        let pair = |source| TlsError::Pair { cert: self.cert.clone(), key: self.key.clone(), source };
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(pair)?;
        let builder = match (&self.client_ca, &texts.client_ca) {
            (Some(path), Some(text)) => {
                let refused = |reason: String| TlsError::File { path: path.clone(), reason };
                let mut roots = RootCertStore::empty();
                for authority in certificates(path, text)? {
                    roots.add(authority).map_err(|error| refused(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| refused(error.to_string()))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(TlsError::File { path: path.to_owned(), reason: format!("is larger than {FILE_BYTES} bytes") });
    }
    Ok(bytes)
}

fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(not_pem(path, &pem::Error::NoItemsFound)),
        Ok(chain) => Ok(chain),
        Err(error) => Err(not_pem(path, &error)),
    }
}

fn not_pem(path: &Path, error: &pem::Error) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: format!("is not the PEM file that it should be: {error}") }
}

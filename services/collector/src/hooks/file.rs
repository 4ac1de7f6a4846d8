//! The file of webhooks, read and checked before any of them is served.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::HeaderName;
use rapport_events::Tenant;
use rapport_shapes::mapping::Mapping;
use serde::Deserialize;

use super::signature::{Encoding, Pairs, Scheme, Timestamp, TimestampFormat};

/// Larger files are none of hooks, mappings or secrets.
const FILE_BYTES: u64 = 1 << 20;
const HOOKS: usize = 1_000;
const NAME_BYTES: usize = 64;
const SECRETS: usize = 8;
/// Shorter ones can be guessed.
const SECRET_BYTES: usize = 16;
/// What Stripe's and Slack's own libraries allow.
const WINDOW: Duration = Duration::from_secs(300);
const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Why the hooks cannot be served: where in the file, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum HooksError {
    #[error("cannot read {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{file}: {reason}")]
    Yaml { file: PathBuf, reason: String },
    #[error("hooks[{n}] ({name:?}): {reason}")]
    Hook { n: usize, name: String, reason: String },
}

/// A webhook that is served.
#[derive(Debug)]
pub struct Hook {
    pub name: String,
    pub tenant: Tenant,
    pub scheme: Scheme,
    pub mapping: Mapping,
    pub(super) secrets: Secrets,
}

impl Hook {
    /// Any of these is good.
    pub fn secrets(&self) -> &[Vec<u8>] {
        &self.secrets.0
    }
}

/// Its `Debug` shows nothing of them.
pub(super) struct Secrets(Vec<Vec<u8>>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    hooks: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    tenant: String,
    mapping: PathBuf,
    secrets: Vec<SecretEntry>,
    preset: Option<String>,
    signature: Option<SignatureEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretEntry {
    env: Option<String>,
    file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureEntry {
    header: String,
    #[serde(default)]
    prefix: String,
    encoding: EncodingEntry,
    signed: Option<String>,
    pairs: Option<PairsEntry>,
    timestamp: Option<TimestampEntry>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EncodingEntry {
    Hex,
    Base64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PairsEntry {
    signature: String,
    timestamp: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimestampEntry {
    header: Option<String>,
    format: FormatEntry,
    window: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FormatEntry {
    UnixS,
    UnixMs,
    Rfc3339,
}

/// Reads the hooks, their mappings and their secrets; none where there is no file.
///
/// # Errors
/// Names the hook and the field.
pub fn load(file: Option<&Path>) -> Result<Vec<Hook>, HooksError> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let yaml = |reason: String| HooksError::Yaml { file: file.to_owned(), reason };
    let File { hooks } = serde_yaml_ng::from_str(&read(file)?).map_err(|error| yaml(error.to_string()))?;
    if hooks.len() > HOOKS {
        return Err(yaml(format!("hooks: may be {HOOKS}, are {}", hooks.len())));
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut served: Vec<Hook> = Vec::with_capacity(hooks.len());
    for (n, entry) in hooks.into_iter().enumerate() {
        let name = entry.name.chars().take(NAME_BYTES).collect::<String>();
        let refused = |reason| HooksError::Hook { n, name, reason };
        if served.iter().any(|hook| hook.name == entry.name) {
            return Err(refused("name: another hook has it".into()));
        }
        served.push(entry.check(folder).map_err(refused)?);
    }
    Ok(served)
}

fn read(path: &Path) -> Result<String, HooksError> {
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(FILE_BYTES).read_to_string(&mut text));
    read.map(|_| text).map_err(|source| HooksError::File { path: path.to_owned(), source })
}

impl Entry {
    fn check(self, folder: &Path) -> Result<Hook, String> {
        let normal = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_');
        if self.name.is_empty() || self.name.len() > NAME_BYTES || !self.name.chars().all(normal) {
            return Err(format!("name: must be 1 to {NAME_BYTES} of a-z, 0-9, '-' and '_': it stands in the path"));
        }
        let scheme = match (self.preset, self.signature) {
            (Some(name), None) => preset(&name)
                .ok_or_else(|| format!("preset: must be shopify, github, zendesk or stripe, is {name:?}"))?,
            (None, Some(signature)) => signature.check()?,
            (Some(_), Some(_)) | (None, None) => return Err("needs either a preset or a signature".into()),
        };
        if self.secrets.is_empty() || self.secrets.len() > SECRETS {
            return Err(format!("secrets: must be 1 to {SECRETS}, are {}", self.secrets.len()));
        }
        let secrets = self.secrets.into_iter().enumerate();
        let secrets =
            secrets.map(|(n, secret)| secret.read(folder).map_err(|reason| format!("secrets[{n}]: {reason}")));
        let mapping = read(&folder.join(&self.mapping)).map_err(|error| format!("mapping: {error}"))?;
        Ok(Hook {
            tenant: Tenant::parse(&self.tenant).map_err(|error| error.to_string())?,
            secrets: Secrets(secrets.collect::<Result<_, _>>()?),
            mapping: Mapping::from_yaml(&mapping)
                .map_err(|error| format!("mapping: {}: {error}", self.mapping.display()))?,
            name: self.name,
            scheme,
        })
    }
}

impl SecretEntry {
    fn read(self, folder: &Path) -> Result<Vec<u8>, String> {
        let secret = match (self.env, self.file) {
            (Some(name), None) => std::env::var(&name).map_err(|_| format!("env: the variable {name} is not set"))?,
            (None, Some(path)) => read(&folder.join(path)).map_err(|error| format!("file: {error}"))?,
            (Some(_), Some(_)) | (None, None) => return Err("must be either env or file".into()),
        };
        let secret = secret.trim();
        if secret.len() < SECRET_BYTES {
            return Err(format!("must have at least {SECRET_BYTES} bytes, has {}", secret.len()));
        }
        Ok(secret.as_bytes().to_vec())
    }
}

impl SignatureEntry {
    fn check(self) -> Result<Scheme, String> {
        let timestamp = self.timestamp.map(TimestampEntry::check).transpose()?;
        let pairs = self.pairs.map(|pairs| Pairs { signature: pairs.signature, timestamp: pairs.timestamp });
        let signed = self.signed.as_deref().unwrap_or("{body}");
        let before_body = match (signed, signed.strip_prefix("{timestamp}")) {
            ("{body}", _) => None,
            (_, Some(rest)) => rest.strip_suffix("{body}").map(str::to_owned),
            _ => None,
        };
        if before_body.is_none() && signed != "{body}" {
            return Err(format!(
                "signature.signed: must be \"{{body}}\" or \"{{timestamp}}...{{body}}\", is {signed:?}"
            ));
        }
        let in_pairs = pairs.as_ref().is_some_and(|pairs| pairs.timestamp.is_some());
        match &timestamp {
            None if before_body.is_some() || in_pairs => {
                return Err("signature.timestamp: is missing; say its format and where it stands".into());
            }
            Some(rule) if rule.header.is_some() == in_pairs => {
                return Err("signature.timestamp: must stand either in a header or in pairs".into());
            }
            // Whoever records a call could put any time beside it.
            Some(_) if before_body.is_none() => {
                return Err(
                    "signature.signed: a time that is not signed proves nothing; say \"{timestamp}.{body}\"".into()
                );
            }
            Some(_) | None => {}
        }
        let encoding = match self.encoding {
            EncodingEntry::Hex => Encoding::Hex,
            EncodingEntry::Base64 => Encoding::Base64,
        };
        Ok(Scheme {
            header: header("signature.header", &self.header)?,
            pairs,
            prefix: self.prefix,
            encoding,
            before_body,
            timestamp,
        })
    }
}

impl TimestampEntry {
    fn check(self) -> Result<Timestamp, String> {
        let window = match &self.window {
            Some(text) => {
                rapport_runtime::parse_duration(text).map_err(|error| format!("signature.timestamp.window: {error}"))?
            }
            None => WINDOW,
        };
        if window > LONGEST_WINDOW {
            return Err(format!("signature.timestamp.window: may be {LONGEST_WINDOW:?}, is {window:?}"));
        }
        let format = match self.format {
            FormatEntry::UnixS => TimestampFormat::UnixS,
            FormatEntry::UnixMs => TimestampFormat::UnixMs,
            FormatEntry::Rfc3339 => TimestampFormat::Rfc3339,
        };
        let name = self.header.map(|name| header("signature.timestamp.header", &name)).transpose()?;
        Ok(Timestamp { header: name, format, window })
    }
}

fn header(field: &str, name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|_| format!("{field}: must be the name of a header, is {name:?}"))
}

/// The schemes of senders that many have.
pub(super) fn preset(name: &str) -> Option<Scheme> {
    let of = |header: &'static str, encoding| Scheme {
        header: HeaderName::from_static(header),
        pairs: None,
        prefix: String::new(),
        encoding,
        before_body: None,
        timestamp: None,
    };
    let timestamp = |header: Option<&'static str>, format| {
        Some(Timestamp { header: header.map(HeaderName::from_static), format, window: WINDOW })
    };
    Some(match name {
        "shopify" => of("x-shopify-hmac-sha256", Encoding::Base64),
        "github" => Scheme { prefix: "sha256=".into(), ..of("x-hub-signature-256", Encoding::Hex) },
        "zendesk" => Scheme {
            before_body: Some(String::new()),
            timestamp: timestamp(Some("x-zendesk-webhook-signature-timestamp"), TimestampFormat::Rfc3339),
            ..of("x-zendesk-webhook-signature", Encoding::Base64)
        },
        "stripe" => Scheme {
            pairs: Some(Pairs { signature: "v1".into(), timestamp: Some("t".into()) }),
            before_body: Some(".".into()),
            timestamp: timestamp(None, TimestampFormat::UnixS),
            ..of("stripe-signature", Encoding::Hex)
        },
        _ => return None,
    })
}

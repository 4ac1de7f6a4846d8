//! How a client proves to Kafka who it is, and how it knows that it talks to Kafka.

use std::{fmt, fs::File, path::Path, path::PathBuf};

use clap::ValueEnum;

/// Longer ones are no passwords: a wrong file was named.
const PASSWORD_BYTES: usize = 4096;

/// Encryption and login, the same for every client of a service.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Kafka security")]
pub struct SecurityArgs {
    /// Whether connections are encrypted (ssl) and whether a login is needed (sasl)
    #[arg(long = "kafka-security-protocol", env = "RAPPORT_KAFKA_SECURITY_PROTOCOL", value_enum,
          default_value_t = Protocol::Plaintext)]
    pub protocol: Protocol,

    /// Authorities of the brokers' certificates, PEM; without it the system's
    #[arg(long = "kafka-ca", env = "RAPPORT_KAFKA_CA")]
    pub ca: Option<PathBuf>,

    /// This client's certificate, PEM, for brokers that ask for one
    #[arg(long = "kafka-cert", env = "RAPPORT_KAFKA_CERT")]
    pub cert: Option<PathBuf>,

    /// The private key of --kafka-cert, PEM
    #[arg(long = "kafka-key", env = "RAPPORT_KAFKA_KEY")]
    pub key: Option<PathBuf>,

    /// How the login proves the password
    #[arg(long = "kafka-sasl-mechanism", env = "RAPPORT_KAFKA_SASL_MECHANISM", value_enum)]
    pub mechanism: Option<Mechanism>,

    /// The user of the login
    #[arg(long = "kafka-sasl-username", env = "RAPPORT_KAFKA_SASL_USERNAME")]
    pub username: Option<String>,

    /// The password of the login. Set the variable, or use --kafka-sasl-password-file: others can see a
    /// program's flags
    #[arg(long = "kafka-sasl-password", env = "RAPPORT_KAFKA_SASL_PASSWORD", hide_env_values = true)]
    pub password: Option<Secret>,

    /// A file whose first line is the password of the login
    #[arg(long = "kafka-sasl-password-file", env = "RAPPORT_KAFKA_SASL_PASSWORD_FILE", value_parser = Secret::of_file,
          conflicts_with = "password")]
    pub password_file: Option<Secret>,
}

/// `security.protocol` of Kafka.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Protocol {
    #[default]
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl Protocol {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    const fn encrypts(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    const fn logs_in(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// `sasl.mechanism` of Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mechanism {
    #[value(name = "PLAIN")]
    Plain,
    #[value(name = "SCRAM-SHA-256")]
    ScramSha256,
    #[value(name = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// A password. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The first line of a file.
    ///
    /// # Errors
    /// The file, and why.
    pub fn of_file(path: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
        text.lines().next().unwrap_or_default().parse().map_err(|reason| format!("{path}: the first line {reason}"))
    }
}

impl std::str::FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.len() {
            1..=PASSWORD_BYTES => Ok(Self(text.to_owned())),
            bytes => Err(format!("must have 1 to {PASSWORD_BYTES} bytes, has {bytes}")),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl SecurityArgs {
    /// Whether the settings fit together and the files can be read.
    ///
    /// # Errors
    /// Names the flag, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        let protocol = self.protocol.as_str();
        if !self.protocol.encrypts()
            && let Some((flag, _)) = self.files().into_iter().find(|(_, file)| file.is_some())
        {
            return Err(format!("{flag} needs --kafka-security-protocol ssl or sasl_ssl, which is {protocol}"));
        }
        if self.cert.is_some() != self.key.is_some() {
            return Err("--kafka-cert and --kafka-key must both be given, or neither".into());
        }
        for (flag, file) in self.files() {
            file.map_or(Ok(()), |file| File::open(file).map(drop))
                .map_err(|error| format!("{flag} {}: {error}", file.unwrap_or(Path::new("")).display()))?;
        }
        let login = [
            ("--kafka-sasl-mechanism", self.mechanism.is_some()),
            ("--kafka-sasl-username", self.username.as_ref().is_some_and(|name| !name.is_empty())),
            ("RAPPORT_KAFKA_SASL_PASSWORD or --kafka-sasl-password-file", self.password().is_some()),
        ];
        let logs_in = self.protocol.logs_in();
        match login.into_iter().find(|(_, given)| *given != logs_in) {
            Some((flag, false)) => Err(format!("--kafka-security-protocol {protocol} needs {flag}")),
            Some((flag, true)) => {
                Err(format!("{flag} needs --kafka-security-protocol sasl_ssl or sasl_plaintext, which is {protocol}"))
            }
            None => Ok(()),
        }
    }

    fn files(&self) -> [(&'static str, Option<&Path>); 3] {
        [
            ("--kafka-ca", self.ca.as_deref()),
            ("--kafka-cert", self.cert.as_deref()),
            ("--kafka-key", self.key.as_deref()),
        ]
    }

    fn password(&self) -> Option<&Secret> {
        self.password.as_ref().or(self.password_file.as_ref())
    }

    /// The settings of librdkafka that say so.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        if self.protocol == Protocol::Plaintext {
            return Vec::new();
        }
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let all = [
            ("security.protocol", Some(self.protocol.as_str().to_owned())),
            ("ssl.ca.location", path(&self.ca)),
            ("ssl.certificate.location", path(&self.cert)),
            ("ssl.key.location", path(&self.key)),
            ("sasl.mechanism", self.mechanism.map(|mechanism| mechanism.as_str().to_owned())),
            ("sasl.username", self.username.clone()),
            ("sasl.password", self.password().map(|secret| secret.0.clone())),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        security: SecurityArgs,
    }

    fn parsed(flags: &[&str]) -> Result<SecurityArgs, String> {
        let program = Program::try_parse_from(["program"].iter().chain(flags)).map_err(|e| e.to_string())?;
        program.security.check().map(|()| program.security)
    }

    const LOGIN: [&str; 6] = [
        "--kafka-sasl-mechanism",
        "SCRAM-SHA-512",
        "--kafka-sasl-username",
        "rapport",
        "--kafka-sasl-password",
        "sEcReT",
    ];

    #[test]
    fn a_login_over_tls_is_said_in_librdkafkas_words() {
        let args = parsed(&[&["--kafka-security-protocol", "sasl_ssl"], &LOGIN[..]].concat()).unwrap();
        let settings: Vec<_> = args.settings().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            settings,
            [
                "security.protocol=sasl_ssl",
                "sasl.mechanism=SCRAM-SHA-512",
                "sasl.username=rapport",
                "sasl.password=sEcReT"
            ]
        );
        assert!(!format!("{args:?}").contains("sEcReT"));
        assert!(parsed(&[]).unwrap().settings().is_empty(), "nothing is set that was not asked for");
    }

    #[test]
    fn settings_that_do_not_fit_together_are_refused_by_flag() {
        let refused = |flags: &[&str]| parsed(flags).unwrap_err();
        let error = refused(&["--kafka-security-protocol", "sasl_ssl"]);
        assert_eq!(error, "--kafka-security-protocol sasl_ssl needs --kafka-sasl-mechanism");
        assert!(refused(&LOGIN).contains("needs --kafka-security-protocol sasl_ssl or sasl_plaintext"));
        assert!(refused(&["--kafka-ca", "/x"]).contains("--kafka-ca needs --kafka-security-protocol ssl"));
        let ssl = ["--kafka-security-protocol", "ssl"];
        assert!(refused(&[&ssl[..], &["--kafka-ca", "/no/such"]].concat()).contains("--kafka-ca /no/such"));
        assert!(refused(&[&ssl[..], &["--kafka-cert", "/x"]].concat()).contains("must both be given"));
        assert!(refused(&["--kafka-security-protocol", "tls"]).contains("possible values"));
        assert!(refused(&["--kafka-sasl-password-file", "/no/such"]).contains("cannot read /no/such"));
    }

    #[test]
    fn a_password_may_stand_in_a_file() {
        let path = std::env::temp_dir().join(format!("rapport-password-{}", std::process::id()));
        std::fs::write(&path, "sEcReT\n").unwrap();
        let file = path.to_str().unwrap();
        let flags =
            [&["--kafka-security-protocol", "sasl_plaintext"], &LOGIN[..4], &["--kafka-sasl-password-file", file]];
        let args = parsed(&flags.concat()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(args.settings().contains(&("sasl.password", "sEcReT".into())));
    }
}

use std::{path::PathBuf, sync::Arc, time::Duration};

use rapport_features::Views;
use rapport_redis::{Connection, Replicas, Settings, check_url};

use crate::{Error, Keys};

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(ms) if (1..=60_000).contains(&ms) => Ok(Duration::from_millis(ms)),
        Ok(_) | Err(_) => Err("must be 1 to 60000 milliseconds".into()),
    }
}

fn key_prefix(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | ':');
    if text.is_empty() || text.len() > 64 || !text.chars().all(good) {
        return Err("must be 1 to 64 letters, digits, '_', '.', '-' or ':'".into());
    }
    Ok(text.to_owned())
}

fn redis_url(text: &str) -> Result<String, String> {
    check_url(text).map(|()| text.to_owned())
}

/// How to reach the online store, the same for every service.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Online store")]
pub struct OnlineArgs {
    /// Redis: one node as redis://[user:password@]host:port[/db], a Redis Cluster as
    /// redis-cluster://[user:password@]host:port[,host:port]..., some of its nodes being enough
    #[arg(long, env = "RAPPORT_REDIS_URL", default_value = "redis://127.0.0.1:6379", value_parser = redis_url,
          hide_env_values = true)]
    pub redis_url: String,

    /// What every key begins with
    #[arg(long, env = "RAPPORT_KEY_PREFIX", default_value = "rapport", value_parser = key_prefix)]
    pub key_prefix: String,

    /// A read that Redis has not answered by then is given up, in milliseconds
    #[arg(long, env = "RAPPORT_REDIS_READ_TIMEOUT_MS", default_value = "250", value_parser = milliseconds)]
    pub redis_read_timeout_ms: Duration,

    /// A write that Redis has not answered by then is tried again, in milliseconds
    #[arg(long, env = "RAPPORT_REDIS_WRITE_TIMEOUT_MS", default_value = "5000", value_parser = milliseconds)]
    pub redis_write_timeout_ms: Duration,

    /// A write counts when so many replicas of its master have it too, so that a failover does not lose it; while fewer
    /// are there, the stream waits. With 0 a failover may lose the last moment before it
    #[arg(long, env = "RAPPORT_REDIS_REPLICAS", default_value_t = 0)]
    pub redis_replicas: u8,
}

impl OnlineArgs {
    /// For programs that have no command line.
    pub fn at(redis_url: impl Into<String>, key_prefix: impl Into<String>) -> Self {
        Self {
            redis_url: redis_url.into(),
            key_prefix: key_prefix.into(),
            redis_read_timeout_ms: Duration::from_millis(250),
            redis_write_timeout_ms: Duration::from_secs(5),
            redis_replicas: 0,
        }
    }

    /// Who must have a write.
    pub fn replicas(&self) -> Replicas {
        // Half of the time is left for the write itself.
        Replicas { count: self.redis_replicas, within: self.redis_write_timeout_ms / 2 }
    }

    pub fn keys(&self) -> Keys {
        Keys::new(&self.key_prefix)
    }

    /// A connection that is made at the first use and again after it broke. Must be called within a
    /// Tokio runtime.
    ///
    /// # Errors
    /// The URL is not one of Redis's.
    pub fn connect(&self, timeout: Duration) -> Result<Connection, Error> {
        // One short retry inside: the callers have their own, and deadlines shorter than its.
        let connect_within = timeout.max(Duration::from_secs(1));
        let settings = Settings { connect_within, answer_within: timeout, retries: 1 };
        Ok(Connection::open(&self.redis_url, settings)?)
    }
}

/// Which feature views are in force, the same for every service that reads or writes features.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Features")]
pub struct ViewsArgs {
    /// A YAML file of feature views [default: the built-in views]
    #[arg(long, env = "RAPPORT_VIEWS")]
    pub views: Option<PathBuf>,
}

impl ViewsArgs {
    /// # Errors
    /// The file cannot be read, or the place in it that is wrong.
    pub fn load(&self) -> Result<Arc<Views>, Error> {
        let wrong = |reason: String| Error::Views {
            path: self.views.as_ref().map_or_else(|| "(built in)".into(), |path| path.display().to_string()),
            reason,
        };
        let views = match &self.views {
            None => Views::built_in(),
            Some(path) => Views::parse(&std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?),
        };
        let fit = |views: Views| views.fit_to_serve().map(|()| Arc::new(views));
        views.and_then(fit).map_err(|e| wrong(e.to_string()))
    }
}

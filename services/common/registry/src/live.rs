//! Which version is live: `live.json`, and the record of the models topic that says the same.

use rapport_events::{EventTime, Tenant};
use rapport_proto::models::ModelAnnouncement;
use serde::{Deserialize, Serialize};

use crate::{ArtifactError, ArtifactRef};

/// The live version of a model, as it was last announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    pub tenant: String,
    pub name: String,
    /// The live version; empty when the model is out of service.
    pub champion: String,
    /// Where a rollback goes; empty when there is nothing before.
    pub previous: String,
    /// Grows with every announcement.
    pub epoch: u64,
    /// Folder of the champion, relative to the registry.
    pub artifact: String,
    pub manifest_sha256: String,
    /// RFC 3339.
    pub announced_at: String,
    pub reason: String,
}

impl Live {
    /// What follows `current` when `champion` goes live now.
    pub fn succeeding(current: Option<&Self>, champion: &ArtifactRef, reason: String, now: EventTime) -> Self {
        let previous = match current {
            // The same version again (forced): what was before it stays before it.
            Some(live) if live.champion == champion.version => live.previous.clone(),
            Some(live) => live.champion.clone(),
            None => String::new(),
        };
        Self {
            tenant: champion.tenant.to_string(),
            name: champion.name.clone(),
            champion: champion.version.clone(),
            previous,
            epoch: current.map_or(0, |live| live.epoch) + 1,
            artifact: champion.relative_path(),
            manifest_sha256: champion.manifest_sha256.clone(),
            announced_at: now.to_string(),
            reason,
        }
    }

    /// The value of its record on the models topic.
    pub fn announcement(&self) -> ModelAnnouncement {
        ModelAnnouncement {
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            champion: self.champion.clone(),
            previous: self.previous.clone(),
            epoch: self.epoch,
            artifact: self.artifact.clone(),
            manifest_sha256: self.manifest_sha256.clone(),
            announced_at: EventTime::parse_rfc3339(&self.announced_at).map(EventTime::to_proto),
            reason: self.reason.clone(),
        }
    }

    /// The key of its record on the models topic: `<tenant>/<model name>`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.tenant, self.name)
    }
}

impl TryFrom<ModelAnnouncement> for Live {
    type Error = ArtifactError;

    /// # Errors
    /// A tenant or name that could not stand in a path.
    fn try_from(a: ModelAnnouncement) -> Result<Self, ArtifactError> {
        Tenant::parse(&a.tenant).map_err(|_| ArtifactError::Name {
            field: "tenant",
            value: a.tenant.clone(),
            reason: "is not a tenant",
        })?;
        crate::store::check_name("name", &a.name)?;
        Ok(Self {
            announced_at: a.announced_at.as_ref().and_then(EventTime::from_proto).unwrap_or_default().to_string(),
            tenant: a.tenant,
            name: a.name,
            champion: a.champion,
            previous: a.previous,
            epoch: a.epoch,
            artifact: a.artifact,
            manifest_sha256: a.manifest_sha256,
            reason: a.reason,
        })
    }
}

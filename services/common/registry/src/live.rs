//! Which version is live: `live.json`, and the record of the models topic that says the same.

use rapport_events::{EventTime, Tenant};
use rapport_proto::models::{self, ModelAnnouncement};
use serde::{Deserialize, Serialize};

use crate::{ArtifactError, ArtifactRef};

/// The live version of a model, as it was last announced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// The epoch at which the champion became live; 0 in older records, which says `epoch`.
    #[serde(default)]
    pub champion_epoch: u64,
    /// Tried beside the champion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenger: Option<Challenger>,
}

/// A version on trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Challenger {
    pub version: String,
    /// Folder, relative to the registry.
    pub artifact: String,
    pub manifest_sha256: String,
    /// Of the customers, whose lists it makes; 0: it makes lists that nobody sees.
    pub share: f64,
}

impl Challenger {
    pub fn of(reference: &ArtifactRef, share: f64) -> Self {
        Self {
            version: reference.version.clone(),
            artifact: reference.relative_path(),
            manifest_sha256: reference.manifest_sha256.clone(),
            share,
        }
    }
}

impl Live {
    /// What follows when `challenger`, or nobody, is tried beside the champion from now on.
    #[must_use]
    pub fn challenged_by(&self, challenger: Option<Challenger>, reason: String, now: EventTime) -> Self {
        Self {
            epoch: self.epoch + 1,
            champion_epoch: self.champion_since(),
            challenger,
            announced_at: now.to_string(),
            reason,
            ..self.clone()
        }
    }

    /// The epoch at which the champion became live.
    pub fn champion_since(&self) -> u64 {
        if self.champion_epoch == 0 { self.epoch } else { self.champion_epoch }
    }

    /// What follows `current` when `champion` goes live now. A trial ends with it.
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
            champion_epoch: current.map_or(0, |live| live.epoch) + 1,
            challenger: None,
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
            champion_epoch: self.champion_since(),
            challenger: self.challenger.as_ref().map(|challenger| models::Challenger {
                version: challenger.version.clone(),
                artifact: challenger.artifact.clone(),
                manifest_sha256: challenger.manifest_sha256.clone(),
                share: challenger.share,
            }),
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
            champion_epoch: a.champion_epoch,
            challenger: a.challenger.map(|challenger| Challenger {
                version: challenger.version,
                artifact: challenger.artifact,
                manifest_sha256: challenger.manifest_sha256,
                share: challenger.share,
            }),
        })
    }
}

//! The arms of experiments that are stopped, by a guard rail or a person, as the experiments topic says.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arc_swap::ArcSwap;
use prost::Message as _;
use rapport_events::{FieldError, Tenant};
use rapport_proto::experiments::{Decision, Record, record::Of};

/// Stopped arms of one tenant that are kept: people and guard rails stop a handful.
const MOST: usize = 10_000;

/// One tenant's stopped arms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoppedArms(HashSet<(String, String)>);

impl StoppedArms {
    pub fn has(&self, experiment: &str, arm: &str) -> bool {
        // Nearly always empty: then nothing is copied to look.
        !self.0.is_empty() && self.0.contains(&(experiment.to_owned(), arm.to_owned()))
    }
}

/// Of all tenants; readers take no lock.
#[derive(Default)]
pub struct Stopped(ArcSwap<HashMap<Tenant, Arc<StoppedArms>>>);

impl Stopped {
    pub fn of(&self, tenant: &Tenant) -> Arc<StoppedArms> {
        self.0.load().get(tenant).cloned().unwrap_or_default()
    }

    /// Takes a record of the topic. Statuses say nothing new here.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn apply(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), FieldError> {
        let stopped = match value {
            Some(value) => {
                let record = Record::decode(value)
                    .map_err(|e| FieldError::decode("value", format!("is no rapport.experiments.v1.Record: {e}")))?;
                let Some(Of::Decision(decision)) = record.of else { return Ok(()) };
                decision
            }
            // A decision that is gone, or a status: its key has no arm.
            None => match forgotten(key) {
                Some(decision) => decision,
                None => return Ok(()),
            },
        };
        let tenant = Tenant::parse(&stopped.tenant).map_err(|e| FieldError::decode("tenant", e.to_string()))?;
        let mut all = HashMap::clone(&self.0.load());
        let mut arms = all.get(&tenant).map(|arms| StoppedArms::clone(arms)).unwrap_or_default();
        let arm = (stopped.experiment, stopped.arm);
        if !stopped.stopped {
            arms.0.remove(&arm);
        } else if arms.0.len() < MOST {
            arms.0.insert(arm);
        } else {
            return Err(FieldError::size("arm", format!("{MOST} arms of the tenant are stopped already")));
        }
        all.insert(tenant, Arc::new(arms));
        // One thread follows the topic: nobody else writes.
        self.0.store(Arc::new(all));
        Ok(())
    }
}

fn forgotten(key: &[u8]) -> Option<Decision> {
    let mut parts = std::str::from_utf8(key).ok()?.splitn(3, '/').map(str::to_owned);
    let (tenant, experiment, arm) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Decision { tenant, experiment, arm, ..Decision::default() })
}

#[cfg(test)]
mod tests {
    use rapport_proto::experiments::Status;

    use super::*;

    #[test]
    fn an_arm_is_stopped_until_a_decision_says_otherwise_or_is_gone() {
        let stopped = Stopped::default();
        let (acme, other) = (Tenant::parse("acme").unwrap(), Tenant::parse("other").unwrap());
        let say = |stop: bool| {
            let (tenant, experiment, arm) = ("acme".into(), "e".into(), "b".into());
            let decision = Decision { tenant, experiment, arm, stopped: stop, ..Decision::default() };
            let record = Record { of: Some(Of::Decision(decision)) };
            stopped.apply(b"acme/e/b", Some(&record.encode_to_vec())).unwrap();
        };
        let has = || stopped.of(&acme).has("e", "b");
        say(true);
        assert!(has() && !stopped.of(&acme).has("e", "a") && !stopped.of(&other).has("e", "b"));
        let status = Record { of: Some(Of::Status(Status::default())) };
        stopped.apply(b"acme/e", Some(&status.encode_to_vec())).unwrap();
        stopped.apply(b"acme/e", None).unwrap();
        assert!(has());
        say(false);
        assert!(!has());
        say(true);
        stopped.apply(b"acme/e/b", None).unwrap();
        assert!(!has());
        assert_eq!(stopped.apply(b"acme/e/b", Some(&[0xff, 0xff])).unwrap_err().field, "value");
    }
}

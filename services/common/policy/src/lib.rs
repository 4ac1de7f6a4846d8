//! A tenant's rules for its events: one YAML file, checked, versioned, reloaded.
//!
//! A folder holds one file per tenant, `<tenant>.yaml`; who has none is treated by the built-in
//! rules ([`Policy::default`]). [`Policies::load`] reads the folder and tells every mistake with its
//! file and path; [`watch`] goes on looking at it, and a file that became wrong leaves the tenant's
//! previous rules in force. `deploy/policies/example.yaml` is complete and commented.
//!
//! The sections stand in the order in which an event meets them: [`Collect`] in the collector, the
//! others in the cleaner. Pure but for [`Policies::load`] and [`watch`], which read files.

mod bots;
mod collect;
mod compiled;
mod consent;
mod duration;
mod enrich;
mod normalise;
mod policies;
mod privacy;
mod problem;
mod read;
mod time;
mod validate;
mod watch;

pub use bots::*;
pub use collect::{ClientIp, Collect, UserAgent};
pub use consent::{Consent, ConsentMode, Decision, Fields, Purpose, Without};
pub use enrich::*;
pub use normalise::*;
pub use policies::Policies;
pub use privacy::*;
pub use problem::{PolicyError, PolicyErrors};
pub use time::{OnAncient, OnFuture, Time};
pub use validate::{Breach, Mode, Plan, Unplanned, Validate};
pub use watch::{WatchError, Watched, watch};

/// The version of the built-in rules, which clean events carry where their tenant has no policy of
/// its own. Grows when a built-in rule changes.
pub const BUILTIN: &str = "builtin-1";

/// One tenant's rules. [`Default`] is the built-in ones.
#[derive(Debug, Clone)]
pub struct Policy {
    /// `<tenant>@<version>` ("acme@3"), or [`BUILTIN`]: stamped on every clean event.
    pub version: String,
    /// What the collector may add of the client.
    pub collect: Collect,
    /// What an event must look like.
    pub validate: Validate,
    /// One spelling for one thing.
    pub normalise: Normalise,
    /// Which event times are believed.
    pub time: Time,
    /// What a customer must have agreed to.
    pub consent: Consent,
    /// What leaves hashed, masked, cut or not at all.
    pub privacy: Privacy,
    /// Who is taken for a machine, and what becomes of its events.
    pub bots: Bots,
    /// What is found out about the visit.
    pub enrich: Enrich,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            version: BUILTIN.to_owned(),
            collect: Collect::default(),
            validate: Validate::default(),
            normalise: Normalise::default(),
            time: Time::default(),
            consent: Consent::default(),
            privacy: Privacy::default(),
            bots: Bots::default(),
            enrich: Enrich::default(),
        }
    }
}

impl Policy {
    /// Reads a policy's text. A `schema_file` in it is looked for beside the policy, so it cannot be
    /// used here: see [`Policies::check_file`].
    ///
    /// # Errors
    /// Every mistake, with its path and what would be right.
    pub fn from_yaml(tenant: &str, text: &str) -> Result<Self, Vec<PolicyError>> {
        read::policy(&format!("{tenant}.yaml"), tenant, text, None).result
    }
}

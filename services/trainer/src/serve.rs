//! The gRPC service: runs and models.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use rapport_events::{EventTime, Tenant};
use rapport_proto::train::{
    CancelRunRequest, CancelRunResponse, ChallengeRequest, ChallengeResponse, ListModelsRequest, ListModelsResponse,
    ListRunsRequest, ListRunsResponse, ModelVersion, PromoteRequest, PromoteResponse, RollbackRequest,
    RollbackResponse, RunProgress, RunSummary, StartRunRequest, StartRunResponse, TrainingConfig, WatchRunRequest,
    run_progress::State, trainer_server::Trainer,
};
use rapport_registry::{ArtifactError, Listed, Live};
use rapport_rpc::{status, tenant_of};
use rapport_runtime::Lifecycle;
use tonic::{Code, Request, Response, Status};

use crate::{
    Config, Error, Models, TrainingArgs,
    config::{MAX_BUDGET_S, MAX_EPOCHS},
    dataset::Limits,
    recipes,
    run::Plan,
    runs::{
        Run, Runs,
        ledger::{Asked, Entry, Why},
    },
};

/// The model that a request means when it names none.
pub const DEFAULT_MODEL: &str = "next-item";
const RETRY_QUEUE: Duration = Duration::from_secs(60);

/// The service behind `rapport.train.v1.Trainer`.
pub struct Service {
    training: TrainingArgs,
    default_tenant: Tenant,
    models: Arc<Models>,
    runs: Arc<Runs>,
    checkpoints: std::path::PathBuf,
    lifecycle: Lifecycle,
}

impl Service {
    pub fn new(config: &Config, models: Arc<Models>, runs: Arc<Runs>, lifecycle: Lifecycle) -> Self {
        Self {
            training: config.training.clone(),
            default_tenant: config.default_tenant.clone(),
            models,
            runs,
            checkpoints: config.checkpoints(),
            lifecycle,
        }
    }

    fn tenant<T>(&self, request: &Request<T>) -> Result<Tenant, Status> {
        tenant_of(request.metadata(), &self.default_tenant)
    }

    /// A run of the caller's tenant: others' runs do not exist for it.
    fn known(&self, tenant: &Tenant, id: &str) -> Result<Arc<Run>, Status> {
        self.runs
            .get(id)
            .filter(|run| run.tenant() == tenant)
            .ok_or_else(|| Status::not_found(format!("run_id: no run {id:?} is known; only the last ones are kept")))
    }
}

/// A plan out of a request, with the service's settings where it says nothing.
///
/// # Errors
/// The field that is out of range.
pub fn plan(config: TrainingConfig, tenant: Tenant, training: &TrainingArgs) -> Result<Plan, Status> {
    if config.max_epochs > MAX_EPOCHS {
        let reason = format!("may be at most {MAX_EPOCHS}, is {}", config.max_epochs);
        return Err(status::invalid("config.max_epochs", reason));
    }
    if config.time_budget_s > MAX_BUDGET_S {
        let reason = format!("may be at most {MAX_BUDGET_S}, is {}", config.time_budget_s);
        return Err(status::invalid("config.time_budget_s", reason));
    }
    let wanted = recipes::Wanted { kinds: config.kinds, max_epochs: config.max_epochs, seed: config.seed };
    let recipes = recipes::complete(&wanted, training.recipes.as_deref())
        .map_err(|reason| status::invalid("config.kinds", reason))?;
    Ok(Plan {
        tenant,
        model: model_name("config.model", config.model)?,
        recipes,
        budget: match config.time_budget_s {
            0 => training.budget,
            seconds => Duration::from_secs(seconds.into()),
        },
        compress: training.compress,
        min_cases: training.min_cases,
        limits: Limits { events: training.max_events, items: training.max_items },
        memory: training.memory(),
        since: training.since.clone(),
        event_types: training.event_types.clone(),
        asked: training.asked.clone(),
        dry_run: config.dry_run,
        because: String::new(),
        checkpoints: training.checkpoints.clone(),
        checkpoint_every: training.checkpoint_every,
    })
}

fn model_name(field: &str, name: String) -> Result<String, Status> {
    match name.as_str() {
        "" => Ok(DEFAULT_MODEL.into()),
        text if text.len() <= 64 && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')) => {
            Ok(name)
        }
        _ => Err(status::invalid(field, "may have 64 characters out of a-z, 0-9, '-' and '_'")),
    }
}

/// What an operation on models tells its caller.
fn refused(error: Error) -> Status {
    let message = error.to_string();
    let code = match &error {
        Error::Artifact(ArtifactError::NoSuchVersion { .. }) => Code::NotFound,
        Error::Artifact(ArtifactError::Name { .. }) => Code::InvalidArgument,
        Error::Artifact(artifact) if artifact.corrupt() => Code::DataLoss,
        Error::Gate { .. } | Error::NothingBefore { .. } | Error::Trial { .. } => Code::FailedPrecondition,
        Error::Kafka(_) | Error::Announcement(_) => return status::unavailable(message, Duration::from_secs(1)),
        _ => Code::Internal,
    };
    Status::new(code, message)
}

#[tonic::async_trait]
impl Trainer for Service {
    async fn start_run(&self, request: Request<StartRunRequest>) -> Result<Response<StartRunResponse>, Status> {
        let tenant = self.tenant(&request)?;
        let config = request.into_inner().config.unwrap_or_default();
        let asked = Asked::from(config.clone());
        let plan =
            Plan { checkpoints: Some(self.checkpoints.clone()), ..plan(config, tenant.clone(), &self.training)? };
        match self.runs.start(plan, Entry::new(&tenant, Why::Asked, asked)) {
            Ok(Some(run)) => Ok(Response::new(StartRunResponse { run_id: run.id.clone() })),
            Ok(None) => Err(status::retry_later("the queue of training runs is full", RETRY_QUEUE)),
            Err(error) => Err(refused(error)),
        }
    }

    type WatchRunStream = Pin<Box<dyn Stream<Item = Result<RunProgress, Status>> + Send>>;

    async fn watch_run(&self, request: Request<WatchRunRequest>) -> Result<Response<Self::WatchRunStream>, Status> {
        let tenant = self.tenant(&request)?;
        let run = self.known(&tenant, &request.into_inner().run_id)?;
        let lifecycle = self.lifecycle.clone();
        let lines = futures::stream::unfold((run.watch(), run, 0, false), move |(mut changed, run, seen, over)| {
            let lifecycle = lifecycle.clone();
            async move {
                if over {
                    return None;
                }
                loop {
                    changed.mark_unchanged();
                    let (lines, over) = run.since(seen);
                    if !lines.is_empty() {
                        let seen = seen + lines.len();
                        let lines = lines.into_iter().map(Ok).collect::<Vec<_>>();
                        return Some((futures::stream::iter(lines), (changed, run, seen, over)));
                    }
                    tokio::select! {
                        // The sender lives as long as the run.
                        result = changed.changed() => if result.is_err() { return None },
                        () = lifecycle.drain_requested() => {
                            // The run is being cancelled; its last line may come or not.
                            let gone = vec![Err(status::unavailable("the trainer is stopping", Duration::from_secs(5)))];
                            return Some((futures::stream::iter(gone), (changed, run, seen, true)));
                        }
                    }
                }
            }
        })
        .flatten();
        Ok(Response::new(Box::pin(lines)))
    }

    async fn cancel_run(&self, request: Request<CancelRunRequest>) -> Result<Response<CancelRunResponse>, Status> {
        let tenant = self.tenant(&request)?;
        self.known(&tenant, &request.into_inner().run_id)?.cancel();
        Ok(Response::new(CancelRunResponse {}))
    }

    async fn list_runs(&self, request: Request<ListRunsRequest>) -> Result<Response<ListRunsResponse>, Status> {
        let tenant = self.tenant(&request)?;
        let runs = self.runs.of(&tenant).into_iter().map(summary).collect();
        Ok(Response::new(ListRunsResponse { runs }))
    }

    async fn list_models(&self, request: Request<ListModelsRequest>) -> Result<Response<ListModelsResponse>, Status> {
        let tenant = self.tenant(&request)?;
        let name = model_name("name", request.into_inner().name)?;
        let live = self.models.live(&tenant, &name).map_err(refused)?;
        // Manifests are a few kilobytes each: read here.
        let listed = self.models.registry().versions(&tenant, &name).map_err(|e| refused(e.into()))?;
        let versions = listed.into_iter().map(|version| described(&tenant, &name, version, live.as_ref())).collect();
        Ok(Response::new(ListModelsResponse { versions }))
    }

    async fn promote(&self, request: Request<PromoteRequest>) -> Result<Response<PromoteResponse>, Status> {
        let tenant = self.tenant(&request)?;
        let PromoteRequest { name, version, force } = request.into_inner();
        let name = model_name("name", name)?;
        if version.is_empty() {
            return Err(status::invalid("version", "is empty; name the version to make live"));
        }
        let live = self.models.promote(&tenant, &name, &version, force).await.map_err(refused)?;
        Ok(Response::new(PromoteResponse { live: live.champion, previous: live.previous, epoch: live.epoch }))
    }

    async fn challenge(&self, request: Request<ChallengeRequest>) -> Result<Response<ChallengeResponse>, Status> {
        let tenant = self.tenant(&request)?;
        let ChallengeRequest { name, version, share, force } = request.into_inner();
        let name = model_name("name", name)?;
        if !(0.0..=1.0).contains(&share) {
            return Err(status::invalid("share", format!("must be from 0 to 1, is {share}")));
        }
        let live = if version.is_empty() {
            self.models.end_trial(&tenant, &name, "the trial was ended by an operator").await
        } else {
            self.models.challenge(&tenant, &name, &version, share, force).await
        };
        let live = live.map_err(refused)?;
        let (challenger, share) = live.challenger.map(|c| (c.version, c.share)).unwrap_or_default();
        Ok(Response::new(ChallengeResponse { live: live.champion, challenger, share, epoch: live.epoch }))
    }

    async fn rollback(&self, request: Request<RollbackRequest>) -> Result<Response<RollbackResponse>, Status> {
        let tenant = self.tenant(&request)?;
        let name = model_name("name", request.into_inner().name)?;
        let live = self.models.rollback(&tenant, &name).await.map_err(refused)?;
        Ok(Response::new(RollbackResponse { live: live.champion, previous: live.previous, epoch: live.epoch }))
    }
}

fn summary(entry: Entry) -> RunSummary {
    use crate::runs::ledger::State as Kept;
    let state = match entry.state {
        Kept::Queued => State::Queued,
        Kept::Running => State::Running,
        Kept::Succeeded => State::Succeeded,
        Kept::Failed => State::Failed,
        Kept::Cancelled => State::Cancelled,
    };
    let why = match entry.why {
        Why::Asked => "asked",
        Why::Schedule => "schedule",
        Why::FreshEvents => "fresh events",
        Why::HitRate => "fall of the hit rate",
        Why::Drift => "drift",
    };
    RunSummary {
        run_id: entry.run_id,
        state: state.into(),
        why: why.into(),
        asked_at: EventTime::parse_rfc3339(&entry.asked_at).map(EventTime::to_proto),
        // Until it has ended, why it waits.
        message: if entry.message.is_empty() { entry.reason } else { entry.message },
        config: Some(entry.asked.into()),
    }
}

fn described(tenant: &Tenant, name: &str, listed: Listed, live: Option<&Live>) -> ModelVersion {
    let mut version = ModelVersion {
        name: name.into(),
        live: live.is_some_and(|live| live.champion == listed.version),
        challenger: live
            .and_then(|live| live.challenger.as_ref())
            .is_some_and(|challenger| challenger.version == listed.version),
        artifact: format!("{tenant}/{name}/{}", listed.version),
        version: listed.version,
        ..ModelVersion::default()
    };
    match listed.manifest {
        Ok((manifest, _)) => {
            let about = manifest.description;
            version.kind = about.kind;
            version.created_at = EventTime::parse_rfc3339(&about.created_at).map(EventTime::to_proto);
            version.metrics = about.verdict.metrics.into_iter().collect();
            version.passed_gate = about.verdict.gate.passed;
            version.gate_reason = about.verdict.gate.reason;
        }
        Err(error) => version.gate_reason = error.to_string(),
    }
    version
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::models::DEFAULT_KINDS;

    fn planned(config: TrainingConfig) -> Result<Plan, Status> {
        plan(config, Tenant::parse("demo").unwrap(), &Config::parse_from(["rapport-trainer"]).training)
    }

    #[test]
    fn a_request_that_says_nothing_gets_the_default_models_and_the_services_settings() {
        let plan = planned(TrainingConfig::default()).unwrap();
        let kinds: Vec<&str> = plan.recipes.iter().filter_map(crate::models::kind_of).collect();
        assert_eq!((plan.model.as_str(), kinds.as_slice()), (DEFAULT_MODEL, DEFAULT_KINDS.as_slice()));
        assert_eq!(plan.budget, Duration::from_secs(120));
    }

    #[test]
    fn a_field_out_of_range_is_named() {
        let refused = |config| planned(config).unwrap_err();
        let wrong = refused(TrainingConfig { max_epochs: 1001, ..TrainingConfig::default() });
        assert_eq!(wrong.code(), Code::InvalidArgument);
        assert!(wrong.message().starts_with("config.max_epochs"), "{}", wrong.message());
        let wrong = refused(TrainingConfig { kinds: vec!["bert".into()], ..TrainingConfig::default() });
        assert!(wrong.message().contains("sasrec"), "{}", wrong.message());
        let wrong = refused(TrainingConfig { model: "../x".into(), ..TrainingConfig::default() });
        assert!(wrong.message().starts_with("config.model"), "{}", wrong.message());
        let wrong = refused(TrainingConfig { time_budget_s: 90_000, ..TrainingConfig::default() });
        assert!(wrong.message().starts_with("config.time_budget_s"), "{}", wrong.message());
    }

    #[test]
    fn a_corrupt_artifact_is_data_loss_and_a_lost_gate_a_failed_precondition() {
        let path = std::path::PathBuf::from("x");
        let corrupt = Error::Artifact(ArtifactError::Missing { path: path.clone(), file: "model.onnx".into() });
        assert_eq!(refused(corrupt).code(), Code::DataLoss);
        assert_eq!(refused(Error::Artifact(ArtifactError::NoSuchVersion { path })).code(), Code::NotFound);
        let gate = Error::Gate { version: "1".into(), reason: "worse".into() };
        assert_eq!(refused(gate).code(), Code::FailedPrecondition);
    }
}

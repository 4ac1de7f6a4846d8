//! Calls that change the views of a running store.

use rapport_proto::features::{ApplyViewsResponse, GetBackfillResponse, PlanViewsResponse};
use rapport_rpc::{status, tls::off_the_worker};
use tonic::Status;

use crate::{Error, generations::Generations};

/// Bytes of a view file.
const FILE_BYTES: usize = 1 << 20;

fn check(yaml: &str) -> Result<(), Status> {
    match yaml.len() {
        0 => Err(status::invalid("yaml", "is empty")),
        bytes if bytes > FILE_BYTES => {
            Err(status::invalid("yaml", format!("may have {FILE_BYTES} bytes, has {bytes}")))
        }
        _ => Ok(()),
    }
}

/// The log blocks.
fn beside<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Status> {
    off_the_worker(work).map_err(|error| refused(&error))
}

fn refused(error: &Error) -> Status {
    match error {
        Error::Declared(_) => status::invalid("yaml", error.to_string()),
        Error::Filling { .. } | Error::NotFilled { .. } => Status::failed_precondition(error.to_string()),
        Error::Offline(inner) if inner.retryable() => {
            tracing::warn!(%error, "the log does not answer");
            Status::unavailable("the offline log does not answer")
        }
        _ => {
            tracing::error!(%error, "the views cannot be looked at");
            Status::internal("the offline log holds something that cannot be read")
        }
    }
}

pub(crate) fn plan(generations: &Generations, yaml: &str) -> Result<PlanViewsResponse, Status> {
    check(yaml)?;
    let plan = beside(|| generations.plan(yaml))?;
    let filling = generations.in_force();
    let filling = (!filling.filled).then(|| Error::Filling { generation: filling.generation }.to_string());
    Ok(PlanViewsResponse {
        unchanged: u32::try_from(plan.difference.unchanged).unwrap_or(u32::MAX),
        added: plan.difference.added,
        changed: plan.difference.changed,
        removed: plan.difference.removed,
        events: plan.events,
        schema_hash: plan.reading.schema_hash().to_owned(),
        planned_schema_hash: plan.planned.schema_hash().to_owned(),
        refusal: plan.difference.refusal.or(filling).unwrap_or_default(),
    })
}

pub(crate) fn apply(generations: &Generations, yaml: &str) -> Result<ApplyViewsResponse, Status> {
    check(yaml)?;
    let generation = beside(|| generations.apply(yaml))?;
    Ok(ApplyViewsResponse { generation })
}

pub(crate) fn progress(generations: &Generations) -> Result<GetBackfillResponse, Status> {
    let progress = beside(|| generations.progress())?;
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(GetBackfillResponse {
        generation: progress.in_force.generation,
        in_force: progress.in_force.filled,
        partitions: number(progress.partitions),
        partitions_filled: number(progress.filled),
        schema_hash: progress.schema_hash,
    })
}

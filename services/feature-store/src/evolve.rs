//! Calls that change the views of a running store.

use rapport_proto::features::{ApplyViewsResponse, GetBackfillResponse, PlanViewsResponse};
use rapport_rpc::status;
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

/// Off the threads that answer: the log blocks.
async fn beside<T: Send + 'static>(
    generations: &Generations,
    work: impl FnOnce(&Generations) -> Result<T, Error> + Send + 'static,
) -> Result<T, Status> {
    let generations = generations.clone();
    match tokio::task::spawn_blocking(move || work(&generations)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(refused(&error)),
        Err(_) => Err(Status::internal("the views were not looked at")),
    }
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

pub(crate) async fn plan(generations: &Generations, yaml: String) -> Result<PlanViewsResponse, Status> {
    check(&yaml)?;
    let plan = beside(generations, move |generations| generations.plan(&yaml)).await?;
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

pub(crate) async fn apply(generations: &Generations, yaml: String) -> Result<ApplyViewsResponse, Status> {
    check(&yaml)?;
    let generation = beside(generations, move |generations| generations.apply(&yaml)).await?;
    Ok(ApplyViewsResponse { generation })
}

pub(crate) async fn progress(generations: &Generations) -> Result<GetBackfillResponse, Status> {
    let progress = beside(generations, Generations::progress).await?;
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(GetBackfillResponse {
        generation: progress.in_force.generation,
        in_force: progress.in_force.filled,
        partitions: number(progress.partitions),
        partitions_filled: number(progress.filled),
        schema_hash: progress.schema_hash,
    })
}

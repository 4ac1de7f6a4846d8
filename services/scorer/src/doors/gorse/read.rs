//! Reads: the same answers as over gRPC, in Gorse's shapes.

use std::{sync::Arc, time::Instant};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use rapport_admission::keys::Caller;
use rapport_events::{EventTime, FieldError, Tenant};
use rapport_proto::recommend::{RecommendRequest, ScoredItem, SessionRecommendRequest, SimilarItemsRequest};
use rapport_rpc::tls::off_the_worker;
use serde_json::{Value, json};
use tonic::Code;

use super::{
    Gorse, Sender, Who,
    ask::{Ask, Parameters},
    fault::Fault,
    wire::{self, Feedback, Score},
    write,
};
use crate::{
    catalog::Entry,
    recommender,
    serve::{Time, asks, within},
    store::{Known, With},
};

type House = State<Arc<Gorse>>;
type Scores = Result<Json<Vec<Score>>, Fault>;

impl Gorse {
    fn time(&self) -> Time {
        Time::from(Instant::now(), self.service.answer_timeout)
    }

    /// A customer whom the store knows.
    async fn known(&self, tenant: &Tenant, user: &str, with: With) -> Result<Option<Known>, Fault> {
        let customer = asks::customer(user.to_owned(), tenant, self.service.hash.as_ref())
            .map_err(|error| FieldError { field: "UserId".into(), ..error })?;
        self.service.recommender.store.customer(tenant, &customer, with).await.map_err(|error| {
            tracing::debug!(%error, "no answer without the store");
            Fault::StoreDown
        })
    }
}

/// So many of them as a request's limit counts them.
fn limit(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn score(item: ScoredItem) -> Score {
    Score { id: item.item_id, score: item.score }
}

pub async fn live(house: House) -> Response {
    health(&house, house.lifecycle.liveness().is_ok())
}

pub async fn ready(house: House) -> Response {
    health(&house, house.lifecycle.readiness().is_ok())
}

fn health(gorse: &Gorse, well: bool) -> Response {
    let recommender = &gorse.service.recommender;
    let body = json!({
        "Ready": gorse.lifecycle.readiness().is_ok(),
        "DataStoreConnected": recommender.catalog.caught_up(),
        "DataStoreError": null,
        "CacheStoreConnected": !recommender.store.is_down(),
        "CacheStoreError": null,
    });
    (if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body)).into_response()
}

pub async fn recommend(
    house: House,
    who: Who,
    Path(user): Path<String>,
    headers: HeaderMap,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Fault> {
    recommended(&house, &who, user, &headers, Ask::read(parameters, None)?).await
}

pub async fn recommend_of(
    house: House,
    who: Who,
    Path((user, category)): Path<(String, String)>,
    headers: HeaderMap,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Fault> {
    recommended(&house, &who, user, &headers, Ask::read(parameters, Some(category))?).await
}

async fn recommended(
    gorse: &Gorse,
    Who(caller): &Who,
    user: String,
    headers: &HeaderMap,
    ask: Ask,
) -> Result<Response, Fault> {
    let request = RecommendRequest {
        customer_id: user.clone(),
        limit: limit(ask.limit()),
        category: ask.category,
        ..RecommendRequest::default()
    };
    let answer = gorse.service.recommended(caller.tenant(), gorse.time(), request, ask.offset).await?;
    let scores: Vec<Score> = answer.items.into_iter().map(score).collect();
    if let Some(kind) = ask.write_back {
        let back = |item: &Score| Feedback {
            feedback_type: kind.clone(),
            user_id: user.clone(),
            item_id: item.id.clone(),
            ..Feedback::default()
        };
        write::write_back(gorse, caller, scores.iter().map(back).collect()).await?;
    }
    if headers.get("x-api-version").is_some_and(|version| version.as_bytes() == b"2") {
        return Ok(Json(scores).into_response());
    }
    let ids: Vec<String> = scores.into_iter().map(|score| score.id).collect();
    Ok(Json(ids).into_response())
}

pub async fn neighbors(
    house: House,
    who: Who,
    Path(item): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Scores {
    going_with(&house, &who, item, Ask::read(parameters, None)?).await
}

pub async fn neighbors_of(
    house: House,
    who: Who,
    Path((item, category)): Path<(String, String)>,
    Query(parameters): Query<Parameters>,
) -> Scores {
    going_with(&house, &who, item, Ask::read(parameters, Some(category))?).await
}

async fn going_with(gorse: &Gorse, Who(caller): &Who, item_id: String, ask: Ask) -> Scores {
    let request = SimilarItemsRequest {
        item_id,
        limit: limit(ask.limit()),
        category: ask.category.clone(),
        ..SimilarItemsRequest::default()
    };
    let answer = match gorse.service.going_with(caller.tenant(), gorse.time(), request).await {
        // Gorse has an empty list for an item that it does not know.
        Err(status) if status.code() == Code::NotFound => return Ok(Json(Vec::new())),
        answer => answer?,
    };
    Ok(Json(answer.items.into_iter().skip(ask.offset).map(score).collect()))
}

pub async fn session(house: House, sender: Sender, Query(parameters): Query<Parameters>, body: Bytes) -> Scores {
    next_of_visit(&house, &sender.caller, &body, Ask::read(parameters, None)?).await
}

pub async fn session_of(
    house: House,
    sender: Sender,
    Path(category): Path<String>,
    Query(parameters): Query<Parameters>,
    body: Bytes,
) -> Scores {
    next_of_visit(&house, &sender.caller, &body, Ask::read(parameters, Some(category))?).await
}

async fn next_of_visit(gorse: &Gorse, caller: &Caller, body: &[u8], ask: Ask) -> Scores {
    let (item_ids, times) = visit(wire::read(body)?)?;
    let request = SessionRecommendRequest {
        item_ids,
        times: times.into_iter().map(EventTime::to_proto).collect(),
        limit: limit(ask.limit()),
        category: ask.category.clone(),
        ..SessionRecommendRequest::default()
    };
    let answer = gorse.service.next_of_visit(caller.tenant(), gorse.time(), request).await?;
    Ok(Json(answer.items.into_iter().skip(ask.offset).map(score).collect()))
}

/// The items of a visit, oldest first where all have a time, else as they stand there.
fn visit(feedback: Vec<Feedback>) -> Result<(Vec<String>, Vec<EventTime>), FieldError> {
    let mut items = Vec::with_capacity(feedback.len());
    for (n, one) in feedback.into_iter().enumerate() {
        let time = wire::time(one.timestamp.as_deref()).map_err(|error| wire::in_gorses_words(n, error))?;
        items.push((time, one.item_id));
    }
    if items.iter().any(|(time, _)| time.is_none()) {
        return Ok((items.into_iter().map(|(_, item)| item).collect(), Vec::new()));
    }
    items.sort_by_key(|(time, _)| *time);
    Ok(items.into_iter().map(|(time, item)| (item, time.unwrap_or_else(EventTime::now))).unzip())
}

pub async fn popular(house: House, who: Who, Query(parameters): Query<Parameters>) -> Scores {
    trending(&house, &who, Ask::read(parameters, None)?).await
}

pub async fn popular_of(
    house: House,
    who: Who,
    Path(category): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Scores {
    trending(&house, &who, Ask::read(parameters, Some(category))?).await
}

async fn trending(gorse: &Gorse, Who(caller): &Who, ask: Ask) -> Scores {
    let (tenant, time) = (caller.tenant(), gorse.time());
    let mut question = recommender::Ask {
        limit: ask.limit(),
        category: Some(ask.category).filter(|category| !category.is_empty()),
        ..recommender::Ask::default()
    };
    if !ask.user.is_empty() {
        question.customer = asks::customer(ask.user, tenant, gorse.service.hash.as_ref())?;
    }
    let answer = within(time, gorse.service.recommender.popular(tenant, &question, time.stages)).await?;
    let (items, _) = gorse.service.finish(tenant, answer, None, false);
    Ok(Json(items.into_iter().skip(ask.offset).map(score).collect()))
}

pub async fn latest(house: House, who: Who, Query(parameters): Query<Parameters>) -> Scores {
    newest(&house, &who, Ask::read(parameters, None)?).await
}

pub async fn latest_of(
    house: House,
    who: Who,
    Path(category): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Scores {
    newest(&house, &who, Ask::read(parameters, Some(category))?).await
}

/// The items that appeared last. It looks at the whole catalog, so off the turn of the answers.
async fn newest(gorse: &Gorse, Who(caller): &Who, ask: Ask) -> Scores {
    let tenant = caller.tenant();
    let known = if ask.user.is_empty() { None } else { gorse.known(tenant, &ask.user, With::List).await? };
    let (seen, catalog) = (known.unwrap_or_default().seen, gorse.service.recommender.catalog.of(tenant));
    let (limit, offset, category) = (ask.limit(), ask.offset, ask.category);
    let rank = |item: &str, entry: &Entry| {
        let wanted = category.is_empty() || entry.categories.contains(&category);
        wire::appeared(entry).filter(|_| wanted && !seen.contains(item))
    };
    let found = off_the_worker(|| catalog.highest(limit, rank));
    let shown = found.into_iter().skip(offset);
    Ok(Json(shown.map(|(id, seconds)| Score { id, score: seconds as f64 }).collect()))
}

pub async fn item(house: House, Who(caller): Who, Path(item): Path<String>) -> Result<Json<Value>, Fault> {
    let catalog = house.service.recommender.catalog.of(caller.tenant());
    let found = catalog.look(&item, |entry| entry.cloned());
    let entry = found.ok_or_else(|| Fault::NotFound("ItemId: the catalog does not hold it".into()))?;
    Ok(Json(wire::shown(&item, &entry)))
}

pub async fn items(house: House, Who(caller): Who, Query(parameters): Query<Parameters>) -> Result<Json<Value>, Fault> {
    let ask = Ask::read(parameters, None)?;
    let catalog = house.service.recommender.catalog.of(caller.tenant());
    let n = ask.n;
    let page = off_the_worker(|| catalog.page(&ask.cursor, n));
    let cursor = page.last().filter(|_| page.len() == n).map_or("", |(id, _)| id.as_str());
    let items: Vec<Value> = page.iter().map(|(id, entry)| wire::shown(id, entry)).collect();
    Ok(Json(json!({ "Cursor": cursor, "Items": items })))
}

/// Whether a user is known, and since when nothing came. What was told of them stays with the events.
pub async fn user(house: House, Who(caller): Who, Path(user): Path<String>) -> Result<Json<Value>, Fault> {
    let known = house.known(caller.tenant(), &user, With::List).await?;
    let known = known.ok_or_else(|| Fault::NotFound("UserId: nothing has come of this user".into()))?;
    let last = known.newest.map(|time| time.to_string());
    Ok(Json(json!({ "UserId": user, "Labels": null, "Subscribe": null, "Comment": "", "LastActiveTime": last })))
}

pub async fn feedback(house: House, who: Who, Path(user): Path<String>) -> Result<Json<Value>, Fault> {
    history(&house, &who, user, None).await
}

pub async fn feedback_of(
    house: House,
    who: Who,
    Path((user, kind)): Path<(String, String)>,
) -> Result<Json<Value>, Fault> {
    history(&house, &who, user, Some(kind)).await
}

/// What the online store still knows of a user, newest first.
async fn history(gorse: &Gorse, Who(caller): &Who, user: String, kind: Option<String>) -> Result<Json<Value>, Fault> {
    let known = gorse.known(caller.tenant(), &user, With::History).await?.unwrap_or_default();
    let all = known.history.iter().zip(&known.history_times).zip(&known.history_types).rev();
    let of_kind = all.filter(|(_, name)| kind.as_ref().is_none_or(|kind| kind.eq_ignore_ascii_case(name)));
    let rows = of_kind.map(|((item, time), name)| {
        json!({ "FeedbackType": name, "UserId": user, "ItemId": item, "Timestamp": time.to_string(), "Comment": "" })
    });
    Ok(Json(rows.collect()))
}

//! Models come and go while customers are served.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use prost::Message;
use rapport_integration_tests::{
    events::key,
    harness::{Service, Stack, heavy, stack::TENANT, wait::check, wait_until},
    offline,
    walks::Walks,
};
use rapport_proto::{
    models::ModelAnnouncement,
    recommend::{ExplainRequest, RecommendRequest, RecommendResponse, reason::Kind},
    train::{
        ListModelsRequest, ListRunsRequest, ModelVersion, PromoteRequest, RollbackRequest, RunResult, StartRunRequest,
        TrainingConfig, WatchRunRequest, run_progress::State,
    },
};
use tonic::Code;

use crate::doors::{collect, recommend};

pub const MODEL: &str = "next-item";
pub const WITHIN: Duration = Duration::from_secs(60);

pub const WALKS: Walks =
    Walks { items: 120, events_per_customer: 30, noise: 0.15, start_ms: 1_767_225_600_000, seed: 11 };

/// Sends the walks of these customers and waits until the offline log has them.
pub async fn walk(stack: &Stack, customers: std::ops::Range<usize>) {
    let events = WALKS.events(customers.clone());
    for batch in events.chunks(1_000) {
        collect(stack, batch.to_vec()).await;
    }
    in_the_log(stack, customers.end * WALKS.events_per_customer).await;
}

/// Waits until the offline log has so many events.
pub async fn in_the_log(stack: &Stack, expected: usize) {
    wait_until("the events in the offline log", WITHIN, async || {
        let found = offline::event_ids(stack).len();
        check(found == expected, || format!("{found} of {expected}"))
    })
    .await;
}

pub async fn train(stack: &Stack, config: TrainingConfig) -> RunResult {
    train_and_listen(stack, config).await.0
}

/// The result, and everything that was said on the way.
async fn train_and_listen(stack: &Stack, config: TrainingConfig) -> (RunResult, String) {
    let started = stack.trainer().start_run(StartRunRequest { config: Some(config) }).await.expect("a run starts");
    let run_id = started.into_inner().run_id;
    let mut progress =
        stack.trainer().watch_run(WatchRunRequest { run_id }).await.expect("a run can be watched").into_inner();
    let (mut last, mut said) = (None, String::new());
    while let Some(step) = progress.message().await.expect("the progress arrives") {
        assert!((0.0..=1.0).contains(&step.progress), "{step:?}");
        said.extend([step.message.as_str(), "\n"]);
        last = Some(step);
    }
    let last = last.expect("a run reports at least its end");
    assert_eq!(last.state(), State::Succeeded, "{last:?}");
    let result = last.result.expect("a run that succeeded has a result");
    assert_eq!(result.versions.len(), 1, "one kind makes one version: {result:?}");
    (result, said)
}

pub fn version(result: &RunResult) -> &str {
    &result.versions[0].version
}

pub fn only(kind: &str) -> TrainingConfig {
    TrainingConfig { kinds: vec![kind.to_owned()], seed: 1, ..Default::default() }
}

async fn live(stack: &Stack) -> Option<ModelVersion> {
    let request = ListModelsRequest { name: MODEL.to_owned() };
    let versions = stack.trainer().list_models(request).await.expect("models can be listed").into_inner().versions;
    versions.into_iter().find(|version| version.live)
}

/// Waits until answers are made by this version.
pub async fn served_by(stack: &Stack, version: &str) {
    wait_until(&format!("answers by {version}"), WITHIN, async || {
        let provenance = recommend(stack, &Walks::customer(0), 10).await?.provenance.unwrap_or_default();
        check(provenance.model_version == version, || format!("{provenance:?}"))
    })
    .await;
}

/// Customers who ask all the time. Not one of them may get an error or a list that is short.
struct Hammer {
    stop: Arc<AtomicBool>,
    callers: Vec<tokio::task::JoinHandle<Heard>>,
}

/// What a caller of the hammer got.
#[derive(Default)]
struct Heard {
    calls: usize,
    degraded: usize,
    failures: Vec<String>,
}

impl Hammer {
    fn start(stack: &Stack) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let caller = |start: usize| {
            let (mut scorer, stop) = (stack.scorer(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut heard = Heard::default();
                while !stop.load(Ordering::Relaxed) {
                    let customer_id = Walks::customer((start + heard.calls) % 40);
                    let request = RecommendRequest { customer_id, limit: 10, ..Default::default() };
                    heard.calls += 1;
                    match scorer.recommend(request).await.map(tonic::Response::into_inner) {
                        Err(status) => heard.failures.push(status.to_string()),
                        Ok(answer) if answer.items.len() != 10 => heard.failures.push(format!("{answer:?}")),
                        Ok(answer) => {
                            let degraded = answer.provenance.is_some_and(|p| !p.degraded.is_empty());
                            heard.degraded += usize::from(degraded);
                        }
                    }
                }
                heard
            })
        };
        let callers = vec![caller(0), caller(20)];
        Self { stop, callers }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            let Heard { calls, degraded, failures } = caller.await.unwrap();
            assert!(failures.is_empty(), "{} of {calls} calls failed, the first: {}", failures.len(), failures[0]);
            assert!(calls > 100, "only {calls} calls were made meanwhile: that proves nothing");
            // A call that got no core for 200 ms, beside a training on all of them, is answered without the
            // model; a swap that dropped the old model before the new one is there would show far more.
            assert!(degraded * 100 <= calls, "{degraded} of {calls} answers were degraded");
        }
    }
}

fn ndcg(result: &RunResult, model: &str) -> f64 {
    let found = result.evaluations.iter().find(|evaluation| evaluation.model == model);
    let metrics = &found.unwrap_or_else(|| panic!("{model} was not evaluated: {result:?}")).metrics;
    *metrics.iter().find(|(name, _)| name.to_lowercase().contains("ndcg")).expect("NDCG is measured").1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_better_model_goes_live_and_is_rolled_back_without_a_failed_call_and_a_worse_one_is_refused() {
    let _alone = heavy().await;
    let mut stack = Stack::new("models");
    stack.start(&Service::ALL).await;

    // The first model knows little: 60 customers.
    walk(&stack, 0..60).await;
    let first = train(&stack, only("ridge")).await;
    assert!(first.promoted, "the first model beats its baselines: {first:?}");
    assert!(ndcg(&first, "ridge") > ndcg(&first, "markov") && ndcg(&first, "ridge") > ndcg(&first, "popularity"));
    served_by(&stack, version(&first)).await;
    let scorer = stack.process(Service::Scorer).pid();
    let hammer = Hammer::start(&stack);

    // Ten times the customers: a better model, which goes live by itself.
    walk(&stack, 60..600).await;
    let second = train(&stack, only("ridge")).await;
    assert!(second.promoted, "more data makes a better model: {second:?}");
    assert!(ndcg(&second, "ridge") > ndcg(&second, "champion"), "{second:?}");
    assert_ne!(version(&second), version(&first));
    served_by(&stack, version(&second)).await;
    assert_eq!(live(&stack).await.unwrap().version, version(&second));

    because_of_the_history(&stack).await;

    // One epoch of a sequence model is no match for it.
    let worse = train(&stack, TrainingConfig { max_epochs: 1, ..only("ligr") }).await;
    assert!(!worse.promoted, "{worse:?}");
    assert!(!worse.reason.is_empty(), "a refusal has a reason");
    let refused = PromoteRequest { name: MODEL.to_owned(), version: version(&worse).to_owned(), force: false };
    let status = stack.trainer().promote(refused.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert_eq!(live(&stack).await.unwrap().version, version(&second));
    served_by(&stack, version(&second)).await;

    // An operator may insist, and go back.
    let forced = stack.trainer().promote(PromoteRequest { force: true, ..refused }).await.unwrap().into_inner();
    assert_eq!((forced.live.as_str(), forced.previous.as_str()), (version(&worse), version(&second)));
    served_by(&stack, &forced.live).await;
    let back = stack.trainer().rollback(RollbackRequest { name: MODEL.to_owned() }).await.unwrap().into_inner();
    assert_eq!(back.live, version(&second));
    assert!(back.epoch > forced.epoch, "epochs grow: {back:?} after {forced:?}");
    served_by(&stack, version(&second)).await;

    hammer.end().await;
    let process = stack.process(Service::Scorer);
    assert!(process.ended().is_none() && process.pid() == scorer, "the scorer was restarted");
}

/// Which version answers each of the first customers.
async fn versions(stack: &Stack, customers: usize) -> Vec<String> {
    let mut versions = Vec::new();
    for n in 0..customers {
        let answer = recommend(stack, &Walks::customer(n), 10).await.expect("an answer");
        versions.push(answer.provenance.unwrap_or_default().model_version);
    }
    versions
}

/// As in deploy/placements/example.yaml.
const PLACEMENTS: &str = "
placements:
  cart: {}
  cart-trial: {model: trial}
experiments:
  next-model:
    placement: cart
    interleaved: true
    arms: [{name: live, placement: cart}, {name: trial, placement: cart-trial}]
";

/// A list for one customer at a placement.
async fn at(stack: &Stack, placement: &str) -> RecommendResponse {
    let request = RecommendRequest {
        customer_id: Walks::customer(0),
        placement: placement.to_owned(),
        limit: 6,
        ..RecommendRequest::default()
    };
    stack.scorer().recommend(request).await.expect("an answer").into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_winner_is_tried_where_nobody_sees_it_before_it_goes_live_and_a_canary_has_its_share() {
    let _alone = heavy().await;
    let mut stack = Stack::new("trials");
    stack.set(Service::Trainer, "RAPPORT_TRAIN_SHADOW_LISTS", "30");
    let placements = stack.folder().join("placements");
    fs::create_dir(&placements).unwrap();
    fs::write(placements.join(format!("{TENANT}.yaml")), PLACEMENTS).unwrap();
    stack.set(Service::Scorer, "RAPPORT_PLACEMENTS", placements.to_string_lossy());
    stack.start(&Service::ALL).await;
    walk(&stack, 0..60).await;
    let first = train(&stack, only("ridge")).await;
    assert!(first.promoted, "nothing was live that it could be tried against: {first:?}");
    served_by(&stack, version(&first)).await;

    walk(&stack, 60..600).await;
    let second = train(&stack, only("ridge")).await;
    assert!(!second.promoted && second.reason.contains("on trial, unseen"), "{second:?}");
    assert_eq!(live(&stack).await.unwrap().version, version(&first));
    wait_until("the scorer to try it", WITHIN, async || {
        let loads = stack.metric(Service::Scorer, "rapport_scorer_model_loads_total", "ok");
        check(loads == Some(2.0), || format!("{loads:?}"))
    })
    .await;
    // Lists that are made anew are made twice, and all that is seen is the live model's.
    assert!(versions(&stack, 20).await.iter().all(|seen| seen == version(&first)));
    let customers: Vec<String> = versions(&stack, 60).await;
    assert!(customers.iter().any(|seen| seen == version(&first)));
    served_by(&stack, version(&second)).await;
    let live = live(&stack).await.unwrap();
    assert_eq!(live.version, version(&second), "after 30 lists");
    let (code, made) = stack.ask(&["models", "shadow"]);
    assert_eq!((code, made[0]["challenger"].as_str()), (Some(0), Some(version(&second))));
    assert!(made[0]["lists"].as_u64() >= Some(30) && made[0]["failed"] == 0, "{made}");

    // The old one again, for half of the customers; then for nobody.
    let (code, trial) = stack.ask(&["models", "challenge", version(&first), "--share", "0.5"]);
    assert_eq!((code, trial["challenger"].as_str()), (Some(0), Some(version(&first))), "{trial}");
    wait_until("a share of the customers", WITHIN, async || {
        let seen = versions(&stack, 60).await;
        let by_first = seen.iter().filter(|seen| *seen == version(&first)).count();
        check((15..=45).contains(&by_first), || format!("{by_first} of 60"))
    })
    .await;
    // The trial may have begun in the middle of that round.
    let canary = versions(&stack, 60).await;
    assert_eq!(versions(&stack, 60).await, canary, "each customer keeps a version");

    // Where a placement asks for it, and in a list that both models draft.
    assert_eq!(stack.ask(&["models", "challenge", version(&first)]).0, Some(0));
    wait_until("a list by the version on trial", WITHIN, async || {
        let answer = at(&stack, "cart-trial").await;
        let by = answer.provenance.unwrap_or_default().model_version;
        check(by == version(&first), || by)
    })
    .await;
    let drafted = at(&stack, "cart").await;
    let by = drafted.provenance.as_ref().map(|of| (of.experiment.as_str(), of.arm.as_str(), of.model_version.as_str()));
    assert_eq!(by, Some(("next-model", "interleaved", version(&second))));
    let arms: BTreeSet<&str> = drafted.items.iter().map(|item| item.arm.as_str()).collect();
    assert_eq!(arms.into_iter().collect::<Vec<_>>(), ["live", "trial"]);
    assert_eq!(stack.ask(&["models", "challenge", "--end"]).0, Some(0));
    wait_until("all customers to have the live version", WITHIN, async || {
        let seen = versions(&stack, 60).await;
        check(seen.iter().all(|seen| seen == version(&second)), || format!("{seen:?}"))
    })
    .await;
}

/// Waits until the trainer has folded so many events since it started.
async fn folded(stack: &Stack, events: usize) {
    wait_until("the events in the kept sums", WITHIN, async || {
        let found = stack.metric(Service::Trainer, "rapport_trainer_sums_events_total", TENANT).unwrap_or(0.0);
        check(found == events as f64, || format!("{found} of {events}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ridge_is_solved_from_sums_that_followed_the_log_and_outlive_the_trainer() {
    let _alone = heavy().await;
    let mut stack = Stack::new("kept-sums");
    stack.set(Service::Trainer, "RAPPORT_SUMS_EVERY", "200ms");
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore, Service::Trainer]).await;
    walk(&stack, 0..60).await;
    folded(&stack, 1_800).await;
    let (first, said) = train_and_listen(&stack, only("ridge")).await;
    assert!(said.contains("taking the kept sums of 1800 events"), "{said}");
    assert!(first.promoted, "{first:?}");

    let (status, _) = stack.stop(Service::Trainer);
    assert!(status.success(), "{status}");
    walk(&stack, 60..80).await;
    stack.start(&[Service::Trainer]).await;
    folded(&stack, 600).await;
    let (_, said) = train_and_listen(&stack, only("ridge")).await;
    assert!(said.contains("taking the kept sums of 2400 events"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_trainer_was_killed_goes_on_after_its_last_pass() {
    let _alone = heavy().await;
    let mut stack = Stack::new("killed-trainer");
    // A pass takes a fraction of a second here.
    stack.set(Service::Trainer, "RAPPORT_TRAIN_CHECKPOINT_EVERY", "1ms");
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore, Service::Trainer]).await;
    walk(&stack, 0..300).await;

    let config = TrainingConfig { max_epochs: 40, ..only("ligr") };
    let started = stack.trainer().start_run(StartRunRequest { config: Some(config) }).await.unwrap();
    let run_id = started.into_inner().run_id;
    let watch = WatchRunRequest { run_id: run_id.clone() };
    let mut progress = stack.trainer().watch_run(watch.clone()).await.unwrap().into_inner();
    while let Some(step) = progress.message().await.unwrap() {
        let goes_on = matches!(step.state(), State::Queued | State::Running);
        assert!(goes_on, "it must not end before it is killed: {step:?}");
        if step.step == "fit sequence" && step.epoch >= 3 {
            break;
        }
    }
    stack.kill(Service::Trainer);
    stack.start(&[Service::Trainer]).await;

    // It goes on by itself: nobody asks again.
    let runs = stack.trainer().list_runs(ListRunsRequest {}).await.unwrap().into_inner().runs;
    assert_eq!(runs.iter().map(|run| run.run_id.as_str()).collect::<Vec<_>>(), [run_id.as_str()]);
    let mut progress = stack.trainer().watch_run(watch).await.unwrap().into_inner();
    let (mut first_pass, mut last) = (None, None);
    while let Some(step) = progress.message().await.expect("the progress arrives") {
        if step.step == "fit sequence" && step.epoch > 0 {
            first_pass.get_or_insert(step.epoch);
        }
        last = Some(step);
    }
    assert!(first_pass.is_some_and(|pass| pass >= 3), "it began anew with pass {first_pass:?}");
    assert_eq!(last.unwrap().state(), State::Succeeded);
}

/// A model's list is explained by items that the customer has.
async fn because_of_the_history(stack: &Stack) {
    let customer = Walks::customer(0);
    let had: Vec<String> = WALKS.events(0..1).into_iter().map(|event| event.item_id).collect();
    let request = ExplainRequest { customer_id: customer, ..Default::default() };
    let why = stack.scorer().explain(request).await.expect("a list is explained").into_inner();
    assert_eq!(why.items.len(), 5);
    for item in &why.items {
        let reasons = || item.reasons.iter().filter(|reason| reason.kind() == Kind::History);
        assert!(item.place > 0 && reasons().count() > 0, "{item:?}");
        assert!(reasons().all(|reason| had.contains(&reason.item_id)), "{item:?}");
        assert!(reasons().map(|reason| reason.value).sum::<f64>() <= 1.0 + 1e-4, "{item:?}");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Changes one byte in the middle of a file.
fn damage(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x01;
    fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_artifact_is_refused_and_the_old_model_keeps_serving() {
    let _alone = heavy().await;
    let mut stack = Stack::new("corrupt");
    stack.start(&Service::ALL).await;
    walk(&stack, 0..60).await;
    let good = train(&stack, only("ridge")).await;
    assert!(good.promoted, "{good:?}");
    served_by(&stack, version(&good)).await;
    let hammer = Hammer::start(&stack);

    // A copy of the live version with one bit changed, announced by somebody with a broken disk.
    let folder = stack.registry_folder().join(TENANT).join(MODEL);
    let broken = format!("{}-broken", version(&good));
    copy_folder(&folder.join(version(&good)), &folder.join(&broken));
    damage(&folder.join(&broken).join("model.onnx"));
    let models = stack.broker.read_all(&stack.topics.models);
    let last: ModelAnnouncement = models.last().expect("an announcement").decode();
    let announce = |version: &str, epoch: u64| {
        let announcement = ModelAnnouncement {
            champion: version.to_owned(),
            artifact: format!("{TENANT}/{MODEL}/{version}"),
            previous: last.champion.clone(),
            epoch,
            champion_epoch: epoch,
            ..last.clone()
        };
        let producer = stack.broker.producer();
        producer.send(&stack.topics.models, Some(&key(TENANT, MODEL)), &announcement.encode_to_vec(), &[]);
        producer.flush();
    };
    announce(&broken, last.epoch + 1);
    wait_until("the scorer to refuse it", WITHIN, async || {
        let refused = stack.metric(Service::Scorer, "rapport_scorer_model_loads_total", r#"outcome="refused""#);
        check(refused.is_some_and(|times| times > 0.0), || format!("{refused:?} refusals"))
    })
    .await;
    // The old one serves.
    for _ in 0..20 {
        let provenance = recommend(&stack, &Walks::customer(1), 10).await.unwrap().provenance.unwrap();
        assert_eq!(provenance.model_version, version(&good));
    }
    // The trainer refuses to make it live, too.
    let request = PromoteRequest { name: MODEL.to_owned(), version: broken.clone(), force: true };
    let status = stack.trainer().promote(request).await.unwrap_err();
    assert!(matches!(status.code(), Code::DataLoss | Code::FailedPrecondition), "{status}");

    // A whole one is taken again afterwards.
    announce(version(&good), last.epoch + 2);
    wait_until("the next good announcement to be taken", WITHIN, async || {
        let provenance = recommend(&stack, &Walks::customer(2), 10).await?.provenance.unwrap_or_default();
        check(provenance.model_epoch == last.epoch + 2, || format!("{provenance:?}"))
    })
    .await;

    // Its file goes bad on the disk: what is in memory serves on, and nobody can promote it any more.
    damage(&folder.join(version(&good)).join("model.onnx"));
    let request = PromoteRequest { name: MODEL.to_owned(), version: version(&good).to_owned(), force: true };
    let status = stack.trainer().promote(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    assert_eq!(
        recommend(&stack, &Walks::customer(3), 10).await.unwrap().provenance.unwrap().model_version,
        version(&good)
    );
    hammer.end().await;
}

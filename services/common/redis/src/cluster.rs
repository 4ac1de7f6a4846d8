//! Many masters behind one call, for tasks.
//!
//! The driver's own cluster connection takes a pipeline for one slot only, and sends a whole pipeline again when
//! one of its keys has moved. A batch here has keys of hundreds of slots: it goes out in one piece for each
//! master (decision 0042).

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use redis::{
    Cmd, Pipeline, RedisError, Value,
    aio::{ConnectionLike as _, ConnectionManager},
};

use crate::{
    address::ClusterAddress,
    connection::{Settings, manager},
    replicas::Replicas,
    route::{Group, Pending, ROUNDS, Round, groups, nothing_known, of_node, too_many_rounds},
    slots::{Node, Slots, key_of, slot_of},
};

/// During an outage every call would look up who has which slot: one look in so long a time serves them all.
const LOOKED_UP_AT_MOST_EVERY: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub(crate) struct Cluster(Arc<Inner>);

struct Inner {
    address: ClusterAddress,
    settings: Settings,
    known: Mutex<Known>,
    /// Who has which slot may have changed.
    stale: AtomicBool,
    /// Held by the one call that looks it up.
    looking: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Known {
    slots: Arc<Slots>,
    connections: HashMap<Node, ConnectionManager>,
}

impl Cluster {
    pub fn new(address: ClusterAddress, settings: Settings) -> Self {
        let (known, looking) = (Mutex::new(Known::default()), tokio::sync::Mutex::new(None));
        Self(Arc::new(Inner { address, settings, known, stale: AtomicBool::new(true), looking }))
    }

    /// Runs commands of one key each. With `first_everywhere` the first command goes to every node before
    /// its others, and has no answer.
    pub async fn run(
        &self,
        pipeline: &Pipeline,
        first_everywhere: bool,
        replicas: Replicas,
    ) -> Result<Vec<Value>, RedisError> {
        let commands: Vec<&Cmd> = pipeline.cmd_iter().collect();
        let (first, commands) = match commands.split_first() {
            Some((first, rest)) if first_everywhere => (Some(*first), rest),
            _ => (None, commands.as_slice()),
        };
        let slot = |command: &Cmd| key_of(command.args_iter().map(word)).map_or(0, slot_of);
        let mut pending: Vec<Pending> =
            commands.iter().enumerate().map(|(place, c)| Pending { place, slot: slot(c), ask: None }).collect();
        let mut answers = vec![Value::Nil; commands.len()];
        for _ in 0..ROUNDS {
            let slots = self.slots().await?;
            let groups = groups(&slots, pending).inspect_err(|_| self.look_again())?;
            let told = join_all(groups.iter().map(|group| self.send(group, first, commands, replicas))).await;
            let (mut round, mut failed) = (Round::default(), None);
            for (group, told) in groups.into_iter().zip(told) {
                match told {
                    Ok(of_node) => round.take(group, of_node, &mut answers),
                    Err(error) => failed = Some(error),
                }
            }
            self.learn(&round);
            if let Some(error) = failed {
                self.look_again();
                return Err(error);
            }
            if round.again.is_empty() {
                return answers.into_iter().map(Value::extract_error).collect();
            }
            pending = round.again;
        }
        Err(too_many_rounds())
    }

    async fn send(
        &self,
        group: &Group,
        first: Option<&Cmd>,
        commands: &[&Cmd],
        replicas: Replicas,
    ) -> Result<Vec<Value>, RedisError> {
        let mut pipeline = Pipeline::with_capacity(2 * group.commands.len() + 2);
        if let Some(first) = first {
            pipeline.add_command(first.clone());
        }
        for command in group.commands.iter().filter_map(|pending| commands.get(pending.place)) {
            if group.asking {
                pipeline.cmd("ASKING");
            }
            pipeline.add_command((*command).clone());
        }
        replicas.add_to(&mut pipeline);
        let mut answers = self.packed(&group.node, &pipeline).await?;
        replicas.check(&mut answers)?;
        let skipped = usize::from(first.is_some());
        let each = if group.asking { 2 } else { 1 };
        Ok(answers.into_iter().skip(skipped + each - 1).step_by(each).collect())
    }

    /// Answers as they come, errors of single commands among them.
    async fn packed(&self, node: &Node, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let mut connection = self.connection(node)?;
        let answers = connection.req_packed_commands(pipeline, 0, pipeline.len()).await;
        answers.map_err(|error| of_node(node, error))
    }

    pub async fn run_on(&self, node: &Node, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let answers = self.packed(node, pipeline).await.inspect_err(|_| self.look_again())?;
        answers.into_iter().map(Value::extract_error).collect()
    }

    /// Whether every master answers.
    pub async fn ping(&self, ping: &Pipeline) -> Result<(), RedisError> {
        let slots = self.slots().await?;
        let all = join_all(slots.masters().into_iter().map(|node| self.run_on(node, ping)));
        all.await.into_iter().try_for_each(|answer| answer.map(drop))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connection(&self, node: &Node) -> Result<ConnectionManager, RedisError> {
        let mut known = self.known();
        if let Some(connection) = known.connections.get(node) {
            return Ok(connection.clone());
        }
        let connection = manager(self.0.address.of(node), self.0.settings)?;
        known.connections.insert(node.clone(), connection.clone());
        Ok(connection)
    }

    fn look_again(&self) {
        self.0.stale.store(true, Ordering::Relaxed);
    }

    /// What redirections told.
    fn learn(&self, round: &Round) {
        if !round.moved.is_empty() {
            let mut known = self.known();
            let slots = Arc::make_mut(&mut known.slots);
            round.moved.iter().for_each(|(slot, node)| slots.moved(*slot, node.clone()));
        }
        if round.lost {
            self.look_again();
        }
    }

    /// Who has which slot, looked up where that may have changed.
    pub async fn slots(&self) -> Result<Arc<Slots>, RedisError> {
        if !self.0.stale.load(Ordering::Relaxed) {
            return Ok(Arc::clone(&self.known().slots));
        }
        let mut looked = self.0.looking.lock().await;
        let lately = looked.is_some_and(|at: Instant| at.elapsed() < LOOKED_UP_AT_MOST_EVERY);
        if lately || !self.0.stale.load(Ordering::Relaxed) {
            return Ok(Arc::clone(&self.known().slots));
        }
        let slots = self.look_up().await?;
        *looked = Some(Instant::now());
        Ok(slots)
    }

    /// Who has which slot, looked up now.
    pub async fn look_now(&self) -> Result<Arc<Slots>, RedisError> {
        let mut looked = self.0.looking.lock().await;
        let slots = self.look_up().await?;
        *looked = Some(Instant::now());
        Ok(slots)
    }

    /// Asks every node that is known at once: one that is away does not hold the others up.
    async fn look_up(&self) -> Result<Arc<Slots>, RedisError> {
        let nodes: BTreeSet<Node> = {
            let known = self.known();
            known.slots.nodes().iter().chain(known.connections.keys()).chain(&self.0.address.seeds).cloned().collect()
        };
        self.0.stale.store(false, Ordering::Relaxed);
        let mut question = redis::pipe();
        question.cmd("CLUSTER").arg("SLOTS");
        let mut asked: FuturesUnordered<_> = nodes.iter().map(|node| self.ask_for_slots(node, &question)).collect();
        let mut failed = None;
        while let Some(told) = asked.next().await {
            match told {
                Ok(slots) => return Ok(self.take_over(slots)),
                Err(error) => failed = Some(error),
            }
        }
        self.look_again();
        Err(failed.unwrap_or_else(too_many_rounds))
    }

    async fn ask_for_slots(&self, node: &Node, question: &Pipeline) -> Result<Slots, RedisError> {
        let answer = self.packed(node, question).await?.into_iter().next().unwrap_or_default().extract_error()?;
        Slots::from_answer(&answer, node).ok_or_else(|| nothing_known(node))
    }

    fn take_over(&self, slots: Slots) -> Arc<Slots> {
        let mut known = self.known();
        if *known.slots != slots {
            slots.tell();
            let of_now = slots.masters();
            let seeds = &self.0.address.seeds;
            known.connections.retain(|node, _| of_now.contains(node) || seeds.contains(node));
            known.slots = Arc::new(slots);
        }
        Arc::clone(&known.slots)
    }
}

fn word(word: redis::Arg<&[u8]>) -> &[u8] {
    match word {
        redis::Arg::Simple(word) => word,
        // Cursors are written as any other word here.
        _ => b"",
    }
}

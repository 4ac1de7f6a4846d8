use std::{sync::Arc, time::Duration};

use redis::{
    Client, ConnectionInfo, Pipeline, RedisError, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};

use crate::{
    address::Address,
    cluster::Cluster,
    replicas::Replicas,
    slots::{Node, Slots},
};

/// How patient a connection is.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub connect_within: Duration,
    pub answer_within: Duration,
    /// How often a connection that cannot be made is tried again before a call fails.
    pub retries: usize,
}

/// Redis, connected to at the first use and again after a connection broke. Cheap to clone.
#[derive(Clone)]
pub struct Connection(Way);

#[derive(Clone)]
enum Way {
    One(ConnectionManager),
    Cluster(Cluster),
}

/// One of the nodes that have keys: the one, or a master of a Cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master(Option<Node>);

/// Which node has which keys. Equal while no slot has gone to another master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout(Option<Arc<Slots>>);

impl Layout {
    /// The nodes that have keys.
    pub fn masters(&self) -> Vec<Master> {
        match &self.0 {
            None => vec![Master(None)],
            Some(slots) => slots.masters().into_iter().map(|node| Master(Some(node.clone()))).collect(),
        }
    }
}

/// A connection to one node that mends itself.
pub(crate) fn manager(info: ConnectionInfo, settings: Settings) -> Result<ConnectionManager, RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(settings.retries)
        .set_min_delay(Duration::from_millis(20))
        .set_max_delay(Duration::from_millis(200))
        .set_connection_timeout(Some(settings.connect_within))
        .set_response_timeout(Some(settings.answer_within));
    // Small requests, each waited for: Nagle's algorithm would hold one back for the answer to the last.
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    ConnectionManager::new_lazy_with_config(Client::open(info)?, config)
}

impl Connection {
    /// Must be called within a Tokio runtime. Nothing is connected yet.
    ///
    /// # Errors
    /// The URL is none of Redis's.
    pub fn open(url: &str, settings: Settings) -> Result<Self, RedisError> {
        Ok(Self(match Address::parse(url)? {
            Address::One(info) => Way::One(manager(info, settings)?),
            Address::Cluster(address) => Way::Cluster(Cluster::new(address, settings)),
        }))
    }

    /// Runs commands, each of one key, in as few round trips as there are nodes concerned: the answers in the
    /// order of the commands. Commands must not be marked to be ignored.
    ///
    /// # Errors
    /// A node is away or late, or has refused one of the commands. Any of the others may have been carried out.
    pub async fn run(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        match &mut self.0 {
            Way::One(one) => pipeline.query_async(one).await,
            Way::Cluster(cluster) => Box::pin(cluster.run(pipeline, false, Replicas::NONE)).await,
        }
    }

    /// As [`Self::run`]; the writes count when so many replicas have them.
    ///
    /// # Errors
    /// As [`Self::run`], or too few replicas have a write.
    pub async fn write(&mut self, pipeline: &Pipeline, replicas: Replicas) -> Result<Vec<Value>, RedisError> {
        match &mut self.0 {
            Way::One(one) if replicas.count == 0 => pipeline.query_async(one).await,
            Way::One(one) => {
                let mut pipeline = pipeline.clone();
                replicas.add_to(&mut pipeline);
                let mut answers: Vec<Value> = pipeline.query_async(one).await?;
                replicas.check(&mut answers)?;
                Ok(answers)
            }
            Way::Cluster(cluster) => Box::pin(cluster.run(pipeline, false, replicas)).await,
        }
    }

    /// As [`Self::write`], but the first command goes to every node that gets any of the others, before them, and
    /// has no answer.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn write_after_first(
        &mut self,
        pipeline: &Pipeline,
        replicas: Replicas,
    ) -> Result<Vec<Value>, RedisError> {
        match &mut self.0 {
            Way::One(_) => {
                let mut answers = self.write(pipeline, replicas).await?;
                answers.drain(..1.min(answers.len()));
                Ok(answers)
            }
            Way::Cluster(cluster) => Box::pin(cluster.run(pipeline, true, replicas)).await,
        }
    }

    /// Whether every node that has keys answers.
    ///
    /// # Errors
    /// One does not.
    pub async fn ping(&mut self) -> Result<(), RedisError> {
        let mut ping = redis::pipe();
        ping.cmd("PING");
        match &mut self.0 {
            Way::One(one) => ping.query_async::<Vec<Value>>(one).await.map(drop),
            Way::Cluster(cluster) => Box::pin(cluster.ping(&ping)).await,
        }
    }

    /// Which node has which keys, looked up now.
    ///
    /// # Errors
    /// No node tells.
    pub async fn layout(&mut self) -> Result<Layout, RedisError> {
        match &mut self.0 {
            Way::One(_) => Ok(Layout(None)),
            Way::Cluster(cluster) => Ok(Layout(Some(Box::pin(cluster.look_now()).await?))),
        }
    }

    /// Runs commands that have no key on one node.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_on(&mut self, master: &Master, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        match (&mut self.0, &master.0) {
            (Way::Cluster(cluster), Some(node)) => Box::pin(cluster.run_on(node, pipeline)).await,
            (Way::One(one), _) => pipeline.query_async(one).await,
            (Way::Cluster(_), None) => Ok(Vec::new()),
        }
    }

    pub fn is_cluster(&self) -> bool {
        matches!(self.0, Way::Cluster(_))
    }

    /// One tag of [`crate::witness`] for each master that has any; none on one node.
    ///
    /// # Errors
    /// No node tells who has which slot.
    pub async fn witnesses(&mut self) -> Result<Vec<&'static str>, RedisError> {
        match &mut self.0 {
            Way::One(_) => Ok(Vec::new()),
            Way::Cluster(cluster) => Ok(Box::pin(cluster.slots()).await?.witnesses().0),
        }
    }
}

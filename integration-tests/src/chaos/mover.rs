//! Moves replicas and leaders of our topics and of Kafka's own.

use std::{net::SocketAddr, time::Duration};

use rdkafka::{ClientConfig, consumer::BaseConsumer};

use crate::harness::{
    cluster::{NODES, placement},
    kafka_admin,
};

/// What it needs to talk to the brokers, so that it can do so from another thread.
#[derive(Clone)]
pub struct Mover {
    pub brokers: Vec<SocketAddr>,
    pub client: ClientConfig,
    pub topics: Vec<String>,
}

/// For the brokers that are awake to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

const ROUNDS: usize = 3;
const BETWEEN_ROUNDS: Duration = Duration::from_secs(1);

impl Mover {
    /// Takes one broker out of the replicas of a topic, or puts all three back in another order.
    ///
    /// # Errors
    /// No broker does it.
    pub fn move_replicas(&self, topic: usize, without: Option<usize>) -> Result<String, String> {
        let topic = &self.topics[topic % self.topics.len()];
        let mut moved = placement(&self.observer()?, &[topic], ANSWER_WITHIN)?;
        for ((_, partition), replicas) in &mut moved {
            *replicas = match without {
                Some(broker) => replicas.iter().copied().filter(|id| *id != broker as i32 + 1).collect(),
                None => rotated(*partition as usize + replicas.first().map_or(0, |id| *id as usize)),
            };
        }
        self.any_broker(|broker| kafka_admin::reassign(broker, &moved))?;
        Ok(match without {
            Some(broker) => format!("replicas of {topic} leave broker {}", broker + 1),
            None => format!("replicas of {topic} come back"),
        })
    }

    /// Turns the order of all replicas, and lets the new first ones lead.
    ///
    /// # Errors
    /// No broker does it.
    pub fn move_leaders(&self, by: usize) -> Result<String, String> {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let mut moved = placement(&self.observer()?, &topics, ANSWER_WITHIN)?;
        moved.retain(|_, replicas| replicas.len() == NODES);
        moved.values_mut().for_each(|replicas| replicas.rotate_left(by));
        let partitions: Vec<(String, i32)> = moved.keys().cloned().collect();
        self.any_broker(|broker| kafka_admin::reassign(broker, &moved))?;
        self.any_broker(|broker| kafka_admin::elect_preferred(broker, &partitions))?;
        Ok(format!("{} partitions have another leader", partitions.len()))
    }

    fn observer(&self) -> Result<BaseConsumer, String> {
        self.client.create().map_err(|error| error.to_string())
    }

    /// Asks the brokers one after the other, a few rounds long: any of them may be away, and so may the
    /// controller.
    fn any_broker(&self, ask: impl Fn(SocketAddr) -> Result<(), String>) -> Result<(), String> {
        let mut errors = Vec::new();
        for _ in 0..ROUNDS {
            errors.clear();
            for broker in &self.brokers {
                match ask(*broker) {
                    Ok(()) => return Ok(()),
                    Err(error) => errors.push(error),
                }
            }
            std::thread::sleep(BETWEEN_ROUNDS);
        }
        Err(errors.join("; "))
    }
}

/// All brokers, beginning with another one for each `n`.
fn rotated(n: usize) -> Vec<i32> {
    (0..NODES).map(|step| ((n + step) % NODES) as i32 + 1).collect()
}

//! Starts, stops and kills real servers and services.

pub mod clients;
pub mod cluster;
pub mod kafka;
pub mod kafka_admin;
pub mod others;
pub mod ports;
pub mod process;
pub mod reaper;
pub mod redis;
pub mod redis_cluster;
pub mod s3;
pub mod service;
pub mod stack;
pub mod wait;

pub use kafka::{Broker, Record, SecureListener};
pub use redis::RedisServer;
pub use redis_cluster::RedisCluster;
pub use s3::S3Server;
pub use service::Service;
pub use stack::Stack;
pub use wait::{wait_until, wait_until_blocking};

use std::sync::LazyLock;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Tests that keep both cores busy take this, so that two of them do not make each other slow.
pub async fn heavy() -> SemaphorePermit<'static> {
    static HEAVY: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(1));
    HEAVY.acquire().await.expect("the semaphore is never closed")
}

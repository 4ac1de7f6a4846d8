//! Where Redis is, as an operator writes it.

use redis::{ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _, RedisConnectionInfo, RedisError};

use crate::slots::Node;

const CLUSTER: &str = "redis-cluster://";

/// One node, or some of the nodes of a Cluster.
pub(crate) enum Address {
    One(ConnectionInfo),
    Cluster(ClusterAddress),
}

/// Nodes to begin with; the others are learned from them. All have one user and password.
#[derive(Clone)]
pub(crate) struct ClusterAddress {
    pub seeds: Vec<Node>,
    redis: RedisConnectionInfo,
    like: ConnectionInfo,
}

impl ClusterAddress {
    /// How to connect to one of its nodes.
    pub fn of(&self, node: &Node) -> ConnectionInfo {
        let at = ConnectionAddr::Tcp(node.host().to_owned(), node.port());
        self.like.clone().set_addr(at).set_redis_settings(self.redis.clone())
    }
}

/// Whether it is an address of one node or of a Cluster.
///
/// # Errors
/// What would be right.
pub fn check_url(url: &str) -> Result<(), String> {
    let right = "must be like redis://host:6379, or redis-cluster://host:6379,host:6379 for a Redis Cluster";
    Address::parse(url).map(drop).map_err(|error| format!("{right}: {error}"))
}

fn wrong(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, why))
}

impl Address {
    /// # Errors
    /// It is no address.
    pub fn parse(url: &str) -> Result<Self, RedisError> {
        let Some(rest) = url.strip_prefix(CLUSTER) else {
            if url.contains(',') {
                return Err(wrong("several nodes are a Cluster, which begins with redis-cluster://"));
            }
            return Ok(Self::One(url.into_connection_info()?));
        };
        let (user, nodes) = rest.rsplit_once('@').map_or((None, rest), |(user, nodes)| (Some(user), nodes));
        if nodes.contains(['/', '?']) {
            return Err(wrong("a Cluster has one database and no parameters: nothing follows its nodes"));
        }
        let mut seeds = Vec::new();
        let mut like = None;
        for node in nodes.split(',') {
            let url = user.map_or_else(|| format!("redis://{node}"), |user| format!("redis://{user}@{node}"));
            let info = url.as_str().into_connection_info()?;
            let ConnectionAddr::Tcp(host, port) = info.addr() else { return Err(wrong("a node is host:port")) };
            seeds.push(Node::new(host, *port));
            like = Some(info);
        }
        let like = like.ok_or_else(|| wrong("a Cluster needs the address of one node at least"))?;
        Ok(Self::Cluster(ClusterAddress { seeds, redis: like.redis_settings().clone(), like }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(url: &str) -> ClusterAddress {
        match Address::parse(url).unwrap() {
            Address::Cluster(cluster) => cluster,
            Address::One(_) => unreachable!("{url} is a Cluster"),
        }
    }

    #[test]
    fn a_cluster_is_told_from_one_node_by_its_scheme() {
        assert!(matches!(Address::parse("redis://:secret@a:1/2").unwrap(), Address::One(_)));
        let cluster = cluster("redis-cluster://ann:p%40ss@a:1,b:2,c");
        assert_eq!(cluster.seeds, [Node::new("a", 1), Node::new("b", 2), Node::new("c", 6379)]);
        let info = cluster.of(&Node::new("d", 7));
        assert_eq!(info.redis_settings().username(), Some("ann"));
        assert_eq!(info.redis_settings().password(), Some("p@ss"), "nodes that are learned have it too");
        assert!(matches!(info.addr(), ConnectionAddr::Tcp(host, 7) if host == "d"));
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_would_be_right() {
        for url in ["", "http://a", "redis-cluster://", "redis-cluster://a:x", "redis-cluster://a:1/3", "redis://a,b"] {
            assert!(check_url(url).is_err_and(|why| why.contains("redis-cluster://host:6379")), "{url}");
        }
    }
}

//! Both routers against nodes that only pretend, and write down what they are told.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use rapport_redis::{BlockingCluster, Connection, Packed, Replicas, Settings, key_of, slot_of};
use redis::{Pipeline, Value};

const WITHIN: Duration = Duration::from_secs(2);

/// Nodes that share one view of the cluster.
#[derive(Clone, Default)]
struct Nodes(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    ports: Vec<u16>,
    /// First and last slot, and the node that has them.
    slots: Vec<(u16, u16, usize)>,
    /// Told where a key is on the way to.
    ask: Option<(&'static str, usize)>,
    /// Told by one that has given a slot away and is not asked for the map.
    moved: Option<(&'static str, usize)>,
    replicas: usize,
    /// What each node was told, the handshake left out.
    told: Vec<(usize, String)>,
}

impl Nodes {
    fn start(nodes: usize) -> Self {
        let all = Self::default();
        for n in 0..nodes {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            all.0.lock().unwrap().ports.push(listener.local_addr().unwrap().port());
            let all = all.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let all = all.clone();
                    std::thread::spawn(move || all.serve(n, &stream.unwrap()));
                }
            });
        }
        all
    }

    fn serve(&self, n: usize, stream: &TcpStream) {
        let (mut reader, mut asking) = (BufReader::new(stream), false);
        while let Some(words) = command(&mut reader) {
            let answer = self.answer(n, &words, &mut asking);
            let mut out = stream;
            if answer.is_empty() || out.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// An empty answer closes the connection.
    fn answer(&self, n: usize, words: &[String], asking: &mut bool) -> String {
        let mut state = self.0.lock().unwrap();
        let line = words.join(" ");
        if line.starts_with("CLIENT ") {
            return "+OK\r\n".into();
        }
        if line == "CLUSTER SLOTS" {
            let range = |(first, last, owner): &(u16, u16, usize)| {
                let port = state.ports[*owner];
                format!("*3\r\n:{first}\r\n:{last}\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n")
            };
            return format!("*{}\r\n{}", state.slots.len(), state.slots.iter().map(range).collect::<String>());
        }
        state.told.push((n, line.clone()));
        let was_asking = std::mem::replace(asking, line == "ASKING");
        let Some(key) = key_of(words.iter().map(String::as_bytes)) else {
            return match words[0].as_str() {
                "WAIT" => format!(":{}\r\n", state.replicas),
                _ => "+OK\r\n".into(),
            };
        };
        if line == "ASKING" {
            return "+OK\r\n".into();
        }
        let elsewhere = |(on_its_way, to): (&str, usize)| {
            (on_its_way.as_bytes() == key && to != n)
                .then(|| format!("{} 127.0.0.1:{}\r\n", slot_of(key), state.ports[to]))
        };
        if let Some(told) = state.ask.and_then(elsewhere) {
            return format!("-ASK {told}");
        }
        if let Some(told) = state.moved.and_then(elsewhere) {
            return format!("-MOVED {told}");
        }
        let owns =
            state.slots.iter().any(|(first, last, owner)| *owner == n && (first..=last).contains(&&slot_of(key)));
        let asked = was_asking || state.moved.is_some_and(|(moved, _)| moved.as_bytes() == key);
        assert!(owns || asked, "node {n} is asked for {key:?}");
        format!("$1\r\n{n}\r\n")
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap());
    }

    fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{}", self.0.lock().unwrap().ports[0])
    }

    /// What a node was told since the last look.
    fn told(&self, n: usize) -> Vec<String> {
        let mut state = self.0.lock().unwrap();
        let (of_it, rest) = std::mem::take(&mut state.told).into_iter().partition(|(node, _)| *node == n);
        state.told = rest;
        of_it.into_iter().map(|(_, line)| line).collect()
    }
}

fn command(reader: &mut BufReader<&TcpStream>) -> Option<Vec<String>> {
    let number = |kind: char, reader: &mut BufReader<&TcpStream>| {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        line.trim_end().strip_prefix(kind)?.parse::<usize>().ok()
    };
    let words = number('*', reader)?;
    (0..words)
        .map(|_| {
            let mut word = vec![0; number('$', reader)? + 2];
            reader.read_exact(&mut word).ok()?;
            word.truncate(word.len() - 2);
            String::from_utf8(word).ok()
        })
        .collect()
}

/// `a` and `c` are of node 1 (slots 15495 and 7365 upwards), `b` of node 0 (slot 3300).
fn two_masters() -> Nodes {
    let nodes = Nodes::start(2);
    nodes.set(|state| state.slots = vec![(0, 7_000, 0), (7_001, 16_383, 1)]);
    nodes
}

fn gets(keys: &[&str]) -> Pipeline {
    let mut pipeline = redis::pipe();
    keys.iter().for_each(|key| {
        pipeline.cmd("GET").arg(*key);
    });
    pipeline
}

fn by(nodes: &[u8]) -> Vec<Value> {
    nodes.iter().map(|n| Value::BulkString(vec![b'0' + n])).collect()
}

fn open(nodes: &Nodes) -> Connection {
    let settings = Settings { connect_within: WITHIN, answer_within: WITHIN, retries: 0 };
    Connection::open(&nodes.url(), settings).unwrap()
}

/// A thread's router, with the commands packed as the cleaner packs them.
struct Blocking(BlockingCluster);

impl Blocking {
    fn open(nodes: &Nodes, replicas: Replicas) -> Self {
        Self(BlockingCluster::open(&nodes.url(), WITHIN, replicas).unwrap().unwrap())
    }

    fn run(&mut self, keys: &[&str]) -> redis::RedisResult<Vec<Value>> {
        let (mut bytes, mut packed) = (Vec::new(), Vec::new());
        for key in keys {
            let begins = bytes.len();
            bytes.extend(redis::cmd("GET").arg(*key).get_packed_command());
            packed.push(Packed { bytes: begins..bytes.len(), slot: slot_of(key.as_bytes()) });
        }
        self.0.run(&bytes, &packed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_piece_for_each_master_and_its_answers_stand_in_order() {
    let nodes = two_masters();
    let mut connection = open(&nodes);
    assert_eq!(connection.run(&gets(&["a", "b", "c"])).await.unwrap(), by(&[1, 0, 1]));
    assert_eq!((nodes.told(0), nodes.told(1)), (vec!["GET b".into()], vec!["GET a".into(), "GET c".into()]));

    assert_eq!(Blocking::open(&nodes, Replicas::NONE).run(&["a", "b", "c"]).unwrap(), by(&[1, 0, 1]));
    assert_eq!((nodes.told(0), nodes.told(1)), (vec!["GET b".into()], vec!["GET a".into(), "GET c".into()]));

    connection.ping().await.unwrap();
    assert_eq!((nodes.told(0), nodes.told(1)), (vec!["PING".into()], vec!["PING".into()]), "every master is asked");
    let tags = connection.witnesses().await.unwrap();
    let owners: Vec<bool> = tags.iter().map(|tag| slot_of(tag.as_bytes()) > 7_000).collect();
    assert_eq!(owners, [false, true], "a tag of each master");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_first_goes_to_every_master_that_is_concerned_and_replicas_are_waited_for() {
    let nodes = two_masters();
    nodes.set(|state| state.replicas = 1);
    let mut connection = open(&nodes);
    let write = |keys: &[&str]| {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SCRIPT").arg("LOAD").arg("x");
        gets(keys).cmd_iter().for_each(|command| {
            pipeline.add_command(command.clone());
        });
        pipeline
    };
    let one = Replicas { count: 1, within: WITHIN };
    assert_eq!(connection.write_after_first(&write(&["b", "a"]), one).await.unwrap(), by(&[0, 1]));
    assert_eq!(nodes.told(0), ["SCRIPT LOAD x", "GET b", "WAIT 1 2000"]);
    assert_eq!(nodes.told(1), ["SCRIPT LOAD x", "GET a", "WAIT 1 2000"]);
    connection.write_after_first(&write(&["b"]), Replicas::NONE).await.unwrap();
    assert_eq!((nodes.told(0).len(), nodes.told(1).len()), (2, 0));

    let two = Replicas { count: 2, within: WITHIN };
    let refused = connection.write_after_first(&write(&["b", "a"]), two).await.unwrap_err().to_string();
    assert!(refused.contains("1 of 2"), "{refused}");
    let refused = Blocking::open(&nodes, two).run(&["a", "b"]).unwrap_err().to_string();
    assert!(refused.contains("1 of 2"), "{refused}");
    assert_eq!(Blocking::open(&nodes, one).run(&["a", "b"]).unwrap(), by(&[1, 0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_on_its_way_is_asked_for_where_it_goes_and_nothing_else_is_sent_twice() {
    let nodes = two_masters();
    nodes.set(|state| state.ask = Some(("c", 0)));
    let mut connection = open(&nodes);
    let mut blocking = Blocking::open(&nodes, Replicas::NONE);
    for router in ["of tasks", "of a thread"] {
        let answers = match router {
            "of tasks" => connection.run(&gets(&["a", "c", "b"])).await,
            _ => blocking.run(&["a", "c", "b"]),
        };
        assert_eq!(answers.unwrap(), by(&[1, 0, 0]), "router {router}");
        assert_eq!(nodes.told(0), ["GET b", "ASKING", "GET c"], "router {router}");
        assert_eq!(nodes.told(1), ["GET a", "GET c"], "router {router}");
    }
    assert!(blocking.0.was_redirected());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_has_moved_is_followed_and_remembered() {
    let nodes = two_masters();
    let mut connection = open(&nodes);
    let mut blocking = Blocking::open(&nodes, Replicas::NONE);
    assert_eq!(connection.run(&gets(&["c"])).await.unwrap(), by(&[1]));
    assert_eq!(blocking.run(&["c"]).unwrap(), by(&[1]));
    assert_eq!(nodes.told(1).len(), 2);
    nodes.set(|state| {
        state.slots = vec![(0, 7_000, 0), (7_001, 7_400, 0), (7_401, 16_383, 1)];
        state.moved = Some(("c", 0));
    });
    for first in [true, false] {
        assert_eq!(connection.run(&gets(&["c", "a"])).await.unwrap(), by(&[0, 1]));
        assert_eq!(blocking.run(&["c", "a"]).unwrap(), by(&[0, 1]));
        let to_the_old_one = nodes.told(1).iter().filter(|line| *line == "GET c").count();
        assert_eq!(to_the_old_one, if first { 2 } else { 0 }, "at the first call: {first}");
        assert_eq!(nodes.told(0), ["GET c", "GET c"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_away_is_an_error_until_another_has_its_slots() {
    let nodes = two_masters();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let there = std::mem::replace(&mut nodes.0.lock().unwrap().ports[1], gone);
    let mut connection = open(&nodes);
    let mut blocking = Blocking::open(&nodes, Replicas::NONE);
    let told = connection.run(&gets(&["a", "b"])).await.unwrap_err().to_string();
    assert!(told.contains(&gone.to_string()), "it says which: {told}");
    let told = blocking.run(&["a", "b"]).unwrap_err().to_string();
    assert!(told.contains(&gone.to_string()), "it says which: {told}");
    assert!(connection.ping().await.is_err());

    nodes.0.lock().unwrap().ports[1] = there;
    let deadline = std::time::Instant::now() + WITHIN;
    while connection.run(&gets(&["a", "b"])).await != Ok(by(&[1, 0])) {
        assert!(std::time::Instant::now() < deadline, "it has not found the new master");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(blocking.run(&["a", "b"]).unwrap(), by(&[1, 0]));
}

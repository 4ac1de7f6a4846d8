//! Who is sent what, and what an answer means. Nothing here waits or connects.

use std::collections::BTreeMap;

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use crate::slots::{Node, Slots};

/// A command that has no answer yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Its place among the commands, and of its answer.
    pub place: usize,
    pub slot: u16,
    /// Where its key is on the way to, once a node has told.
    pub ask: Option<Node>,
}

/// What one node is sent in one round trip.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub node: Node,
    /// Each command is preceded by ASKING.
    pub asking: bool,
    pub commands: Vec<Pending>,
}

/// The commands by node, in their order.
///
/// # Errors
/// A slot has no master.
pub(crate) fn groups(slots: &Slots, pending: Vec<Pending>) -> Result<Vec<Group>, RedisError> {
    let mut groups: BTreeMap<(Node, bool), Vec<Pending>> = BTreeMap::new();
    for command in pending {
        let to = match &command.ask {
            Some(node) => (node.clone(), true),
            None => (slots.owner(command.slot).ok_or_else(|| nobody_has(command.slot))?.clone(), false),
        };
        groups.entry(to).or_default().push(command);
    }
    Ok(groups.into_iter().map(|((node, asking), commands)| Group { node, asking, commands }).collect())
}

/// What an answer says about where to ask.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the answer, or an error that belongs to the command.
    Answered,
    /// The slot is there from now on.
    Moved(Node),
    /// This key is there already, the slot is not.
    Ask(Node),
    /// The node is no master of it any more, or cannot know: who is one must be looked up.
    Lost,
}

pub(crate) fn verdict(answer: &Value, told_by: &Node) -> Verdict {
    let Value::ServerError(error) = answer else { return Verdict::Answered };
    let told = || Node::parse(error.details()?.split_ascii_whitespace().nth(1)?, told_by);
    match error.kind() {
        Some(ServerErrorKind::Moved) => told().map_or(Verdict::Lost, Verdict::Moved),
        Some(ServerErrorKind::Ask) => told().map_or(Verdict::Lost, Verdict::Ask),
        Some(ServerErrorKind::ReadOnly | ServerErrorKind::ClusterDown | ServerErrorKind::MasterDown) => Verdict::Lost,
        _ => Verdict::Answered,
    }
}

/// What became of a round trip.
#[derive(Default)]
pub(crate) struct Round {
    /// Commands that must be sent again, elsewhere.
    pub again: Vec<Pending>,
    /// Where slots are now.
    pub moved: Vec<(u16, Node)>,
    /// Who has which slot must be looked up before the next call.
    pub lost: bool,
}

impl Round {
    /// Takes one node's answers: each goes to its place, or its command is sent again.
    pub fn take(&mut self, group: Group, of_node: Vec<Value>, answers: &mut [Value]) {
        for (mut command, answer) in group.commands.into_iter().zip(of_node) {
            match verdict(&answer, &group.node) {
                Verdict::Moved(node) => {
                    self.lost = true;
                    self.moved.push((command.slot, node));
                    command.ask = None;
                    self.again.push(command);
                }
                Verdict::Ask(node) => {
                    command.ask = Some(node);
                    self.again.push(command);
                }
                verdict @ (Verdict::Answered | Verdict::Lost) => {
                    self.lost |= verdict == Verdict::Lost;
                    if let Some(place) = answers.get_mut(command.place) {
                        *place = answer;
                    }
                }
            }
        }
        self.again.sort_unstable_by_key(|command| command.place);
    }
}

pub(crate) fn nobody_has(slot: u16) -> RedisError {
    let what = (ErrorKind::ClusterConnectionNotFound, "no master has a slot", slot.to_string());
    RedisError::from(what)
}

/// An error that a node's connection has is told with the node; one that the node itself told stays as it is.
pub(crate) fn of_node(node: &Node, error: RedisError) -> RedisError {
    if error.kind() == ErrorKind::Io {
        let what = (ErrorKind::ClusterConnectionNotFound, "a node of the cluster", format!("{node}: {error}"));
        RedisError::from(what)
    } else {
        error
    }
}

pub(crate) fn nothing_known(node: &Node) -> RedisError {
    let what = (ErrorKind::ClusterConnectionNotFound, "a node knows of no master with slots", node.to_string());
    RedisError::from(what)
}

/// Round trips of one call: a slot that moves is told once by the old master and, while the map is older still,
/// by the one before it.
pub(crate) const ROUNDS: usize = 5;

pub(crate) fn too_many_rounds() -> RedisError {
    RedisError::from((ErrorKind::ClusterConnectionNotFound, "slots move faster than they can be followed"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::slots::tests::three;

    fn pending(place: usize, slot: u16) -> Pending {
        Pending { place, slot, ask: None }
    }

    fn server_error(text: &str) -> Value {
        redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap()
    }

    fn m(port: u16) -> Node {
        Node::new("m", port)
    }

    #[test]
    fn commands_of_one_master_go_together_and_in_their_order() {
        let groups = groups(&three(), vec![pending(0, 16000), pending(1, 1), pending(2, 9000), pending(3, 0)]).unwrap();
        let told: Vec<_> =
            groups.iter().map(|g| (g.node.port(), g.commands.iter().map(|c| c.place).collect())).collect();
        assert_eq!(told, [(1, vec![1, 3]), (2, vec![2]), (3, vec![0])]);
        let nobody = super::groups(&Slots::default(), vec![pending(0, 7)]).unwrap_err();
        assert!(nobody.to_string().contains('7'), "{nobody}");
    }

    #[test]
    fn redirections_say_where_to_go_and_other_errors_belong_to_their_command() {
        let of = |text: &str| verdict(&server_error(text), &m(1));
        assert_eq!(of("MOVED 3999 10.0.0.7:6381"), Verdict::Moved(Node::new("10.0.0.7", 6381)));
        assert_eq!(of("MOVED 3999 :6381"), Verdict::Moved(m(6381)), "it knows no hosts");
        assert_eq!(of("ASK 3999 [::1]:6381"), Verdict::Ask(Node::new("::1", 6381)));
        for lost in ["READONLY You can't", "CLUSTERDOWN The cluster is down", "MASTERDOWN Link", "MOVED"] {
            assert_eq!(of(lost), Verdict::Lost, "{lost}");
        }
        for own in ["ERR unknown command", "WRONGTYPE Operation", "OOM command not allowed", "LOADING Redis is"] {
            assert_eq!(of(own), Verdict::Answered, "{own}");
        }
        assert_eq!(verdict(&Value::Nil, &m(1)), Verdict::Answered);
    }

    #[test]
    fn a_key_on_its_way_is_asked_for_at_its_new_place_and_a_moved_slot_by_the_map() {
        let mut slots = three();
        let (mut answers, mut round) = (vec![Value::Nil; 3], Round::default());
        let mut first = groups(&slots, vec![pending(0, 1), pending(1, 2), pending(2, 3)]).unwrap();
        let told = vec![server_error("ASK 1 m:2"), Value::Int(5), server_error("MOVED 3 m:3")];
        round.take(first.remove(0), told, &mut answers);
        assert!(round.lost, "the map is looked up again");
        round.moved.into_iter().for_each(|(slot, node)| slots.moved(slot, node));
        let second = groups(&slots, round.again).unwrap();
        let sent: Vec<_> = second.iter().map(|g| (g.node.clone(), g.asking, g.commands[0].place)).collect();
        assert_eq!(sent, [(m(2), true, 0), (m(3), false, 2)]);
        assert_eq!(answers, [Value::Nil, Value::Int(5), Value::Nil]);
    }

    proptest! {
        #[test]
        fn every_command_gets_its_own_answer_however_often_slots_move(
            asked in proptest::collection::vec(0..crate::slots::SLOTS, 0..60),
            moves in proptest::collection::vec(proptest::option::of((any::<bool>(), 1..6_u16)), 0..200),
        ) {
            let (mut slots, mut moves) = (three(), moves.into_iter());
            let mut answers = vec![Value::Nil; asked.len()];
            let mut pending: Vec<_> = asked.iter().enumerate().map(|(n, slot)| pending(n, *slot)).collect();
            while !pending.is_empty() {
                let mut round = Round::default();
                for group in groups(&slots, pending).unwrap() {
                    let told = group.commands.iter().map(|command| match moves.next().flatten() {
                        Some((true, port)) => server_error(&format!("ASK {} m:{port}", command.slot)),
                        Some((false, port)) => server_error(&format!("MOVED {} m:{port}", command.slot)),
                        None => Value::Int(i64::from(command.slot)),
                    });
                    let told = told.collect();
                    round.take(group, told, &mut answers);
                }
                round.moved.into_iter().for_each(|(slot, node)| slots.moved(slot, node));
                pending = round.again;
            }
            let expected: Vec<_> = asked.iter().map(|slot| Value::Int(i64::from(*slot))).collect();
            prop_assert_eq!(answers, expected);
        }
    }
}

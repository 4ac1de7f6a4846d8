//! What a door asks before it takes an event: whose key it is ([`keys`]), whether that key may send so
//! much ([`quota`]), and whether the event is one ([`admit`]). The collector's doors and the scorer's
//! ask the same, by the same file of keys.

pub mod admit;
pub mod credential;
pub mod key_file;
pub mod key_list;
pub mod keys;
pub mod quota;

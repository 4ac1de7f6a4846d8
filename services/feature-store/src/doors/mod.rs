//! Other people's ways to read: each turns a wire shape into a question of ours, and all read through
//! [`crate::read`].

pub(crate) mod feast;

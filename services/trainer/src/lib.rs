//! The trainer: the offline log in, checked and compared models out.

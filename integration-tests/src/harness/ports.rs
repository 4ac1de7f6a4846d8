//! Free TCP ports on the loopback address.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
};

/// Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes a port between
/// the moment it is handed out here and the moment the server binds it.
const FIRST: u32 = 18_000;
const COUNT: u32 = 14_000;

/// A port that nobody listens on. Never the same one twice within a process until all were handed out;
/// processes start at different places.
pub fn free() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (FIRST + start.wrapping_add(step) % COUNT) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

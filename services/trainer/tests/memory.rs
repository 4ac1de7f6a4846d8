//! A log that is larger than the memory it may take: alone in its process, whose memory is measured.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests

use rapport_trainer::dataset::{Builder, Limits, Memory, Seen, Split};

/// `RAPPORT_TEST_EVENTS` takes more.
fn events() -> u64 {
    std::env::var("RAPPORT_TEST_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000_000)
}

const ENOUGH: usize = 4_096;
const CUSTOMERS: u64 = 20_000;

/// Memory of this process that is no file's, in MiB.
fn own_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// The most memory that making a data set of the events took, and whether it was sorted on disk.
fn made(mib: usize) -> (u64, bool) {
    let before = own_memory();
    let memory = Memory { bytes: mib << 20, ..Memory::default() };
    let mut builder = Builder::within(Limits { events: events() as usize, items: 10_000 }, memory);
    let mut most = 0;
    for event in 0..events() {
        let random = event.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31);
        let (customer, item) = ((random % CUSTOMERS).to_string(), (random / CUSTOMERS % 5_000).to_string());
        let (time, offset) = (event as i64 * 10, event as i64);
        builder.add_event(&Seen { customer: &customer, item: &item, time, offset, ..Seen::default() }).unwrap();
        if event % 50_000 == 0 {
            most = most.max(own_memory());
        }
    }
    most = most.max(own_memory());
    let data = builder.finish("demo").unwrap();
    most = most.max(own_memory());
    assert_eq!(data.counts.used, events());
    let split = Split::by_time(&data).unwrap();
    assert!(split.test.len() > 10_000);
    (most.max(own_memory()) - before, data.on_disk())
}

#[test]
fn a_log_larger_than_its_memory_takes_that_and_its_tables() {
    let (small, on_disk) = made(16);
    assert!(on_disk);
    let (large, in_memory) = made(ENOUGH);
    assert!(!in_memory);
    println!("{} events: {small} MiB with --memory 16, {large} MiB with --memory {ENOUGH}", events());
    // Customers and items, and a fifth of the events as cases of 16 bytes, in lists that double.
    assert!(small < 16 + 48 + events() / 125_000, "{small} MiB");
    assert!(large > small + 50, "{large} MiB in memory, {small} on disk: the measure is broken");
}

//! The headers of a record, read once: every look at a header would otherwise go through all of them
//! in librdkafka's list, with a check of every name.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rdkafka::message::{Header, Headers};

#[derive(Debug, Default)]
pub struct ReadHeaders<'m> {
    all: Vec<Header<'m, &'m [u8]>>,
}

impl<'m> ReadHeaders<'m> {
    /// Header names are text by Kafka's protocol, but no broker looks, and rdkafka panics over one that
    /// is not UTF-8. Such a header is left out: a record must not stop the stream by its headers.
    pub fn of<H: Headers>(headers: &'m H) -> Self {
        let read = |from: usize, to: usize| {
            catch_unwind(AssertUnwindSafe(|| (from..to).map_while(|n| headers.try_get(n)).collect::<Vec<_>>()))
        };
        let count = headers.count();
        let all = read(0, count).unwrap_or_else(|_| {
            crate::metrics::unreadable_header();
            (0..count).filter_map(|n| read(n, n + 1).ok()).flatten().collect()
        });
        Self { all }
    }
}

impl Headers for ReadHeaders<'_> {
    fn count(&self) -> usize {
        self.all.len()
    }

    fn try_get(&self, idx: usize) -> Option<Header<'_, &[u8]>> {
        self.all.get(idx).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three headers, the second of which has a name that is no text.
    struct Poisoned;

    impl Headers for Poisoned {
        fn count(&self) -> usize {
            3
        }

        fn try_get(&self, idx: usize) -> Option<Header<'_, &[u8]>> {
            let key = ["a", "", "c"].get(idx)?;
            assert!(!key.is_empty(), "a name that is not UTF-8");
            Some(Header { key, value: Some(b"1") })
        }
    }

    #[test]
    fn a_header_whose_name_is_no_text_is_left_out_and_stops_nothing() {
        let read = ReadHeaders::of(&Poisoned);
        assert_eq!(read.iter().map(|header| header.key).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(read.try_get(2), None);
    }
}

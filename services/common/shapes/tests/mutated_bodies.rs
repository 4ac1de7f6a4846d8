//! Bodies as real clients send them, broken in every way that a network, a bug or malice may break
//! them: whatever comes out is a valid event or a refusal that names its field.
//!
//! About 2 seconds; `RAPPORT_FUZZ_SECONDS=600` goes on for longer, `RAPPORT_FUZZ_SEED` repeats a run.
//! `tests/corpus` holds the bodies; a body that once broke something belongs there too.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prost::Message as _;
use prost_types::{Value, value::Kind};
use rapport_events::{FieldError, limits};
use rapport_proto::events::Event;
use rapport_shapes::{
    Malformed, Parsed, bulk, cloudevents,
    mapping::Mapping,
    one, posthog,
    segment::{self, Call, Shape},
    snowplow,
};

const MAX_EVENTS: usize = 50;

type Originals = fn(&[u8], &[usize]) -> Vec<Vec<u8>>;

struct Body {
    shape: String,
    name: String,
    bytes: Vec<u8>,
}

#[test]
fn a_mutated_body_is_events_or_refusals_and_never_a_panic() {
    let corpus = corpus();
    let seed = variable("RAPPORT_FUZZ_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_secs() ^ u64::from(now.subsec_nanos()) << 20
    });
    let budget = Duration::from_secs(variable("RAPPORT_FUZZ_SECONDS").unwrap_or(2));
    let mut random = Random(seed | 1);
    let mappings = mappings();
    let (began, mut bodies, mut events, mut refused) = (Instant::now(), 0_u64, 0_u64, 0_u64);
    // Every body at least a few times, however slow the machine is.
    while bodies < 20 * corpus.len() as u64 || began.elapsed() < budget {
        for body in &corpus {
            let mutated = random.mutated(&body.bytes, &corpus);
            let outcome = catch_unwind(AssertUnwindSafe(|| judge(&body.shape, &mutated, &mappings)));
            let (good, bad) = match outcome {
                Ok(Ok(counts)) => counts,
                Ok(Err(broken)) => panic!("seed {seed}, {}/{}: {broken}\n{}", body.shape, body.name, shown(&mutated)),
                Err(_) => panic!("seed {seed}, {}/{}: a panic\n{}", body.shape, body.name, shown(&mutated)),
            };
            bodies += 1;
            events += good;
            refused += bad;
        }
    }
    eprintln!("seed {seed}: {bodies} bodies, {events} events, {refused} refusals in {:?}", began.elapsed());
    assert!(events > 0 && refused > 0, "mutations that only ever pass or fail test nothing");
}

#[test]
fn every_body_of_the_corpus_is_understood_whole() {
    let mappings = mappings();
    for body in corpus() {
        let (events, refused) = judge(&body.shape, &body.bytes, &mappings).unwrap();
        assert!(events > 0 && refused == 0, "{}/{}: {events} events, {refused} refused", body.shape, body.name);
    }
}

/// Reads a body as its shape, and checks what must hold whatever it is.
fn judge(shape: &str, body: &[u8], mappings: &[Mapping]) -> Result<(u64, u64), String> {
    let (parsed, originals): (Result<Parsed, Malformed>, Originals) = match shape {
        "segment" if segment::parse(Shape::Batch, body, MAX_EVENTS).is_ok() => {
            (segment::parse(Shape::Batch, body, MAX_EVENTS), segment::originals)
        }
        "segment" => {
            let single = Shape::Single(Call::Page);
            (segment::parse(single, body, MAX_EVENTS), |body, places| {
                segment::originals_of(Shape::Single(Call::Page), body, places)
            })
        }
        "snowplow" if body.first() == Some(&b'{') => (snowplow::parse(body, MAX_EVENTS), snowplow::originals),
        "snowplow" => (snowplow::parse_query(&String::from_utf8_lossy(body)), |body, _| {
            vec![snowplow::query_original(&String::from_utf8_lossy(body))]
        }),
        "posthog" => (posthog::parse(body, MAX_EVENTS), posthog::originals),
        "bulk" => (bulk::parse(body, MAX_EVENTS), bulk::originals),
        "cloudevents" if body.first() == Some(&b'[') => (cloudevents::batch(body, MAX_EVENTS), cloudevents::originals),
        "cloudevents" => {
            let events = vec![cloudevents::structured(body)];
            (Ok(Parsed { events, ..Parsed::default() }), |body, _| vec![body.to_vec()])
        }
        "mapping" => return mapped(body, mappings),
        other => return Err(format!("tests/corpus has a folder of an unknown shape: {other}")),
    };
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(malformed) if malformed.to_string().is_empty() => return Err("a refusal without a reason".into()),
        Err(_) => return Ok((0, 1)),
    };
    let places: Vec<usize> = (0..parsed.events.len()).collect();
    let originals = originals(body, &places);
    if originals.len() != places.len() || places.len() > MAX_EVENTS {
        return Err(format!("{} events, {} originals", places.len(), originals.len()));
    }
    let mut counts = (0, 0);
    for (event, original) in parsed.events.iter().zip(&originals) {
        check(event)?;
        match event {
            Ok(event) => {
                counts.0 += 1;
                // A dead letter's original must be the same event when the cleaner reads it again.
                match one(shape, original) {
                    Ok(again) if again == *event => {}
                    again => return Err(format!("the original is {again:?}, the event was {event:?}")),
                }
            }
            Err(_) => counts.1 += 1,
        }
    }
    Ok(counts)
}

fn mapped(body: &[u8], mappings: &[Mapping]) -> Result<(u64, u64), String> {
    let Ok(json) = serde_json::from_slice(body) else { return Ok((0, 1)) };
    let mut counts = (0, 0);
    for event in mappings.iter().flat_map(|mapping| mapping.apply(&json)) {
        check(&event)?;
        if event.is_ok() { counts.0 += 1 } else { counts.1 += 1 }
    }
    Ok(counts)
}

fn check(event: &Result<Event, FieldError>) -> Result<(), String> {
    match event {
        Ok(event) => {
            let objects = [&event.properties, &event.traits].into_iter().flatten();
            if objects.flat_map(|object| object.fields.values()).any(|value| depth(value) > limits::DEPTH) {
                return Err("an event nests deeper than it may".into());
            }
            if event.value.is_some_and(|value| !value.is_finite()) {
                return Err("an event has a value that is no finite number".into());
            }
            match Event::decode(event.encode_to_vec().as_slice()) {
                Ok(again) if again == *event => Ok(()),
                again => Err(format!("encoded again it is {again:?}, was {event:?}")),
            }
        }
        Err(error) if error.field.is_empty() || error.reason.is_empty() => Err(format!("an empty refusal: {error:?}")),
        Err(_) => Ok(()),
    }
}

fn depth(value: &Value) -> usize {
    1 + match &value.kind {
        Some(Kind::ListValue(list)) => list.values.iter().map(depth).max().unwrap_or(0),
        Some(Kind::StructValue(object)) => object.fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The bodies of `tests/corpus/<shape>/`, and the examples beside the mappings.
fn corpus() -> Vec<Body> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for folder in fs::read_dir(here.join("tests/corpus")).unwrap() {
        let folder = folder.unwrap().path();
        all.extend(bodies_in(&folder, &folder.file_name().unwrap().to_string_lossy(), ""));
    }
    all.extend(bodies_in(&here.join("../../../deploy/mappings"), "mapping", ".example.json"));
    // The order of a folder is the file system's: a seed must mean the same everywhere.
    all.sort_by(|a, b| (&a.shape, &a.name).cmp(&(&b.shape, &b.name)));
    assert!(all.len() > 20, "the corpus was found");
    all
}

fn bodies_in(folder: &Path, shape: &str, ending: &str) -> Vec<Body> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), path))
        .filter(|(name, _)| name.ends_with(ending))
        .map(|(name, path)| Body { shape: shape.to_owned(), name, bytes: fs::read(path).unwrap() })
        .collect()
}

fn mappings() -> Vec<Mapping> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../deploy/mappings");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .map(|path| Mapping::from_yaml(&fs::read_to_string(path).unwrap()).unwrap())
        .collect()
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn shown(body: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(body).chars().take(3000).collect::<String>())
}

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled").
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }

    fn range(&mut self, length: usize, most: usize) -> std::ops::Range<usize> {
        let from = self.below(length + 1);
        from..(from + self.below(most)).min(length)
    }

    /// One to four changes: single bytes, pieces cut, doubled or taken from another body, and words
    /// that decoders have opinions about.
    fn mutated(&mut self, bytes: &[u8], corpus: &[Body]) -> Vec<u8> {
        const WORDS: [&str; 30] = [
            "null",
            "true",
            "-0",
            "1e308",
            "-1",
            "9223372036854775807",
            "18446744073709551616",
            "1e-400",
            "\"\"",
            "\"\\u0000\"",
            "\"\\ud800\"",
            "[]",
            "{}",
            "[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]",
            "\"0001-01-01T00:00:00Z\"",
            "\"9999-12-31T23:59:60Z\"",
            "\"2026-02-30T00:00:00Z\"",
            "253402300800000",
            "\"$identify\"",
            "\"track\"",
            "%00",
            "%zz",
            "&e=pv&",
            "{\"a\":",
            "\u{202e}",
            "\u{feff}",
            "\"加入购物车\"",
            ",",
            "}",
            "\r\n",
        ];
        let mut body = bytes.to_vec();
        for _ in 0..=self.below(4) {
            match self.below(7) {
                0 if !body.is_empty() => {
                    let at = self.below(body.len());
                    body[at] ^= 1 << self.below(8);
                }
                1 => drop(body.drain(self.range(body.len(), 40))),
                2 => {
                    let piece = body[self.range(body.len(), 200)].to_vec();
                    let at = self.below(body.len() + 1);
                    body.splice(at..at, piece);
                }
                3 => {
                    let other = &corpus[self.below(corpus.len())].bytes;
                    let piece = other[self.range(other.len(), 300)].to_vec();
                    let range = self.range(body.len(), 300);
                    body.splice(range, piece);
                }
                4 => body.truncate(self.below(body.len() + 1)),
                // A value of JSON becomes another one: the kind of change that parses.
                5 => {
                    let colons: Vec<usize> = (0..body.len()).filter(|at| body[*at] == b':').collect();
                    let Some(colon) = colons.get(self.below(colons.len())) else { continue };
                    let rest = &body[colon + 1..];
                    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<serde_json::Value>();
                    if values.next().is_some_and(|value| value.is_ok()) {
                        let end = colon + 1 + values.byte_offset();
                        let word = WORDS[self.below(WORDS.len())];
                        body.splice(colon + 1..end, word.bytes());
                    }
                }
                _ => {
                    let range = self.range(body.len(), 12);
                    body.splice(range, WORDS[self.below(WORDS.len())].bytes());
                }
            }
        }
        body
    }
}

//! Metrics of the answers, registered once: the cached path looks none up.

use metrics::{Counter, Histogram, counter, histogram};

use crate::{
    cache::decide::Why,
    degraded::Degraded,
    recommender::{Answer, Served},
};

pub struct Meters {
    hit: Counter,
    stale: Counter,
    miss: Counter,
    /// Seconds between the newest event that an answer reflects and the answer, by event time.
    age: Histogram,
    /// Events that a list served stale was behind.
    pub lag: Histogram,
    /// One round trip to Redis, as a call sees it.
    pub hydrate: Histogram,
    pub bad_lists: Counter,
}

impl Default for Meters {
    fn default() -> Self {
        let answers = |cache: &'static str| counter!("rapport_scorer_answers_total", "cache" => cache);
        Self {
            hit: answers("hit"),
            stale: answers("stale"),
            miss: answers("miss"),
            age: histogram!("rapport_scorer_answer_age_seconds"),
            lag: histogram!("rapport_scorer_list_lag_events"),
            hydrate: histogram!("rapport_scorer_stage_seconds", "stage" => "hydrate"),
            bad_lists: counter!("rapport_scorer_unreadable_lists_total"),
        }
    }
}

impl Meters {
    pub fn answered(&self, answer: &Answer, age: Option<std::time::Duration>) {
        match answer.served {
            Served::Hit => self.hit.increment(1),
            Served::Stale => self.stale.increment(1),
            Served::Miss => self.miss.increment(1),
        }
        if let Some(age) = age {
            self.age.record(age);
        }
        self.degraded(answer.degraded);
    }

    fn degraded(&self, degraded: Degraded) {
        for part in degraded.parts() {
            counter!("rapport_scorer_degraded_total", "part" => part.name()).increment(1);
        }
    }

    /// A list was made for a call, and why.
    pub fn computed(&self, why: Why) {
        counter!("rapport_scorer_lists_made_total", "why" => why.name()).increment(1);
    }
}

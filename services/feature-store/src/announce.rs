//! Step 3: who has changed, on `features.updated`. Off the path and bounded: when Kafka does not
//! take announcements fast enough they are counted and dropped, for the state in Redis is the truth.

use std::{collections::BTreeSet, sync::Arc};

use prost::Message as _;
use rapport_events::{EventTime, event_key};
use rapport_features::Views;
use rapport_kafka::{Publisher, Topics, headers, trace};
use rapport_proto::features::FeaturesUpdated;
use rdkafka::message::OwnedHeaders;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::{customers::Changed, record::Incoming};

pub(crate) struct Announcer {
    publisher: Arc<Publisher>,
    topic: String,
    views: Arc<Views>,
    enabled: bool,
}

impl Announcer {
    pub(crate) fn new(publisher: Arc<Publisher>, topics: &Topics, views: &Arc<Views>, enabled: bool) -> Self {
        Self { publisher, topic: topics.features_updated.clone(), views: Arc::clone(views), enabled }
    }

    /// From now on reads have these views.
    pub(crate) fn adopt(&mut self, views: &Arc<Views>) {
        self.views = Arc::clone(views);
    }

    /// One record for each changed customer. Waits for nothing.
    pub(crate) fn announce(&self, batch: &[Incoming], changed: &[Changed]) {
        if !self.enabled {
            return;
        }
        let mut records = self.publisher.batch(changed.len());
        let mut refused = 0u64;
        for changed in changed {
            let Some(newest) = changed.events.last().and_then(|&i| batch.get(i)) else { continue };
            let events = changed.events.iter().filter_map(|&i| batch.get(i));
            let kinds: BTreeSet<&str> = events.map(|incoming| incoming.logged.event.kind.as_str()).collect();
            let views: BTreeSet<&str> = kinds.iter().flat_map(|kind| self.views.changed_by(kind)).collect();
            let event = &newest.logged.event;
            let update = FeaturesUpdated {
                tenant: event.tenant.as_str().to_owned(),
                customer_id: event.customer_id.clone(),
                views: views.into_iter().map(str::to_owned).collect(),
                newest_event_time: changed.newest.map(EventTime::to_proto),
                version: changed.version,
            };
            let key = event_key(&event.tenant, &event.customer_id);
            let value = update.encode_to_vec();
            let sent = records.send(&self.topic, Some(key.as_bytes()), Some(&value), headers_of(newest));
            refused += u64::from(sent.is_err());
        }
        let sent = records.sent() as u64;
        drop(records.close());
        metrics::counter!("rapport_feature_store_announcements_total", "result" => "sent").increment(sent);
        metrics::counter!("rapport_feature_store_announcements_total", "result" => "dropped").increment(refused);
    }
}

/// What goes with an announcement: whose it is, and the trace of the newest event.
fn headers_of(incoming: &Incoming) -> OwnedHeaders {
    let owned = headers::with(OwnedHeaders::new(), headers::CONTENT_TYPE, headers::PROTOBUF);
    let owned = headers::with(owned, headers::TENANT, incoming.logged.event.tenant.as_str());
    let owned = headers::with(owned, headers::EVENT_ID, &incoming.logged.event.event_id);
    match (&incoming.span, &incoming.context) {
        (Some(span), _) => trace::inject_context(owned, &span.context()),
        (None, Some(context)) => trace::inject_context(owned, context),
        (None, None) => owned,
    }
}

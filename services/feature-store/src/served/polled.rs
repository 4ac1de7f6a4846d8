//! A record of the served topic, decoded.

use prost::Message as _;
use rapport_events::{EventTime, FieldError, Position, Tenant};
use rapport_offline::{ServedItem, ServedList};
use rapport_proto::{
    events::DeadLetter,
    recommend::{Served, provenance::Cache},
};
use rdkafka::{Message as _, message::BorrowedMessage};

use crate::record;

/// Items of one list that are kept: more than a scorer gives.
const ITEMS: usize = 1_000;

/// A record that was polled.
pub(super) enum Polled {
    List(ServedList),
    /// An empty list: its offset is covered without a row.
    Nothing(Position),
    /// No served list: it must be on the dead topic before its offset is covered.
    Dead {
        position: Position,
        key: Option<Vec<u8>>,
        letter: Box<DeadLetter>,
    },
}

impl Polled {
    pub(super) fn position(&self) -> Position {
        match self {
            Self::List(list) => list.position,
            Self::Nothing(position) | Self::Dead { position, .. } => *position,
        }
    }
}

/// What a record is.
pub(super) fn decode(message: &BorrowedMessage<'_>) -> Polled {
    let position = Position { partition: message.partition(), offset: message.offset() };
    match list(message.payload(), position) {
        Ok(Some(list)) => Polled::List(list),
        Ok(None) => Polled::Nothing(position),
        Err(error) => {
            tracing::error!(?position, field = error.field, reason = error.reason, "a record that is no served list");
            metrics::counter!("rapport_feature_store_served_lists_total", "result" => "undecodable").increment(1);
            let letter = Box::new(record::letter(message, position, error, EventTime::now()));
            Polled::Dead { position, key: message.key().map(<[u8]>::to_vec), letter }
        }
    }
}

/// `None` for a list without items: nothing was shown.
fn list(payload: Option<&[u8]>, position: Position) -> Result<Option<ServedList>, FieldError> {
    let payload = payload.ok_or_else(|| FieldError::decode("value", "is missing"))?;
    let served = Served::decode(payload)
        .map_err(|e| FieldError::decode("value", format!("is no rapport.recommend.v1.Served: {e}")))?;
    let tenant = Tenant::parse(&served.tenant).map_err(|e| FieldError::decode("tenant", e.to_string()))?;
    let served_at = served.served_at.as_ref().and_then(EventTime::from_proto);
    let served_at = served_at.ok_or_else(|| FieldError::decode("served_at", "is missing or no time"))?;
    if served.items.len() > ITEMS {
        return Err(FieldError::decode("items", format!("are {}, at most {ITEMS} are kept", served.items.len())));
    }
    let of = served.provenance.unwrap_or_default();
    let cached = match of.cache() {
        Cache::Unspecified => None,
        Cache::Miss => Some(false),
        Cache::Hit | Cache::Stale => Some(true),
    };
    let items: Vec<ServedItem> = served
        .items
        .into_iter()
        .map(|item| ServedItem {
            item_id: item.item_id,
            score: item.score,
            propensity: item.propensity,
            sources: item.sources.join(","),
            arm: item.arm,
        })
        .collect();
    if items.is_empty() {
        return Ok(None);
    }
    Ok(Some(ServedList {
        position,
        tenant,
        customer_id: served.customer_id,
        request_id: of.request_id,
        served_at,
        placement: of.placement,
        experiment: of.experiment,
        arm: of.arm,
        model: of.model,
        model_version: of.model_version,
        cached,
        items,
    }))
}

#[cfg(test)]
mod tests {
    use rapport_proto::recommend::{Provenance, ScoredItem};

    use super::*;

    #[test]
    fn a_served_list_is_kept_with_its_probabilities_and_an_empty_one_is_passed_over() {
        let item = ScoredItem {
            item_id: "a".into(),
            score: 2.0,
            propensity: 0.25,
            sources: vec!["sequence".into(), "trending".into()],
            arm: "b".into(),
            ..ScoredItem::default()
        };
        let mut served = Served {
            tenant: "demo".into(),
            customer_id: "ann".into(),
            items: vec![item],
            provenance: Some(Provenance {
                placement: "home".into(),
                arm: "b".into(),
                cache: Cache::Stale.into(),
                ..Provenance::default()
            }),
            served_at: Some(EventTime::from_ms(1_000).to_proto()),
        };
        let at = Position { partition: 1, offset: 7 };
        let kept = list(Some(&served.encode_to_vec()), at).unwrap().unwrap();
        assert_eq!((kept.position, kept.customer_id.as_str(), kept.served_at.as_ms()), (at, "ann", 1_000));
        assert_eq!((kept.placement.as_str(), kept.arm.as_str(), kept.cached), ("home", "b", Some(true)));
        let shown = ServedItem {
            item_id: "a".into(),
            score: 2.0,
            propensity: 0.25,
            sources: "sequence,trending".into(),
            arm: "b".into(),
        };
        assert_eq!(kept.items, [shown]);
        served.items.clear();
        assert_eq!(list(Some(&served.encode_to_vec()), at).unwrap(), None);
        served.served_at = None;
        assert_eq!(list(Some(&served.encode_to_vec()), at).unwrap_err().field, "served_at");
        assert_eq!(list(None, at).unwrap_err().field, "value");
        assert_eq!(list(Some(&[0xff, 0xff]), at).unwrap_err().field, "value");
    }
}

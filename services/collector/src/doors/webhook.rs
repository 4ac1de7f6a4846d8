//! Webhooks at `/v1/hooks/<name>`: systems that push their own JSON and sign it ([`crate::hooks`]).

use std::sync::Arc;

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use rapport_events::EventTime;
use rapport_shapes::{Malformed, Parsed};
use serde_json::json;

use super::{
    House,
    shape::{self, Endpoint, Head, Sender, Serves, Shape},
    take::{Account, BodyHash},
};
use crate::{error::Refusal, hooks::Hook, keys::Door, publish::Original};

pub fn endpoints(house: &House) -> Vec<Endpoint> {
    let of = |hook: &Arc<Hook>| Endpoint {
        paths: vec![format!("/v1/hooks/{}", hook.name).into()],
        serves: Serves::Events(Arc::new(Webhook { hook: Arc::clone(hook) })),
    };
    house.hooks.iter().map(of).collect()
}

struct Webhook {
    hook: Arc<Hook>,
}

impl Shape for Webhook {
    fn door(&self) -> Door {
        Door::Webhook
    }

    /// The signature says who calls: see [`Shape::open`].
    fn sender(&self, _: &House, _: &Head) -> Result<Option<Sender>, Refusal> {
        Ok(Some(Sender { tenant: self.hook.tenant.clone(), quota: None }))
    }

    fn open(&self, head: &Head, body: Bytes) -> Result<Bytes, Refusal> {
        self.hook.scheme.check(self.hook.secrets(), &head.headers, &body, EventTime::now())?;
        Ok(body)
    }

    fn parse(&self, _: &Head, body: &Bytes, events: usize) -> Result<Parsed, Malformed> {
        let json = serde_json::from_slice(body).map_err(|error| Malformed::Json(error.to_string()))?;
        let found = self.hook.mapping.apply(&json);
        if found.len() > events {
            return Err(Malformed::TooMany { field: "body", limit: events, has: found.len() });
        }
        Ok(Parsed { events: found, ..Parsed::default() })
    }

    /// By the hook and the body: a sender's repeats, and a recorded call that is sent again, add nothing.
    fn event_id(&self, body: &BodyHash<'_>, place: usize) -> Option<String> {
        Some(format!("hook-{}-{}-{place}", self.hook.name, body.hex()))
    }

    /// The whole body, since an event has no bytes of its own in it.
    fn originals(&self, _: &Head, body: &Bytes, places: &[usize]) -> Vec<Original> {
        let content_type = format!("application/json; shape=webhook; hook={}", self.hook.name);
        shape::originals_of(&content_type, places.iter().map(|_| body.to_vec()).collect())
    }

    fn accepted(&self, _: &Head, account: &Account) -> Response {
        Json(json!({ "accepted": account.accepted, "refused": account.dead })).into_response()
    }
}

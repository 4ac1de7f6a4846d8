//! Snowplow's tracker protocol. Trackers send no key: the app id names the tenant, or the host that
//! they call, or a key in the path (`/k/<key>/...`).

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use rapport_policy::{ClientIp, Collect};
use rapport_shapes::{Malformed, Parsed, snowplow};
use serde_json::Value as Json;
use url::form_urlencoded;

use super::{
    House, client,
    cors::Cors,
    shape::{self, Endpoint, Head, Sender, Shape},
    take::Account,
};
use crate::{
    error::Refusal,
    keys::{Door, Unauthenticated},
    publish::Original,
};

const POST_PATHS: [&str; 2] = ["/com.snowplowanalytics.snowplow/tp2", "/k/{key}/com.snowplowanalytics.snowplow/tp2"];
const GET_PATHS: [&str; 2] = ["/i", "/k/{key}/i"];
const ORIGINAL: &str = "application/json; shape=snowplow";

/// A page or an app asks that nothing be kept that tells its visitor from others.
const ANONYMOUS: &str = "sp-anonymous";
/// What goes then: the address, and the visitor's id of the collector's cookie.
const PERSONAL: [&str; 3] = ["ip", "nuid", "tnuid"];

/// User agents of the trackers for phones, beside those that look like a browser's.
const PHONES: [&str; 2] = ["Dalvik/", "snowplow/"];

/// A transparent GIF of one pixel.
const PIXEL: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\
    \x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";
const NO_CACHE: &str = "no-cache, no-store, must-revalidate";

pub fn endpoints(_: &House) -> Vec<Endpoint> {
    vec![Endpoint::new(&POST_PATHS, Snowplow { by_post: true }), Endpoint::new(&GET_PATHS, Snowplow { by_post: false })]
}

struct Snowplow {
    by_post: bool,
}

fn is_anonymous(head: &Head) -> bool {
    head.headers.contains_key(ANONYMOUS)
}

/// A body without what tells a visitor from others; one that cannot be read stays as it is, to be
/// refused by its reader.
fn anonymous(body: Bytes) -> Bytes {
    let Ok(mut json) = serde_json::from_slice::<Json>(&body) else { return body };
    let payloads = json.get_mut("data").and_then(Json::as_array_mut).into_iter().flatten();
    for payload in payloads.filter_map(Json::as_object_mut) {
        PERSONAL.iter().for_each(|name| drop(payload.remove(*name)));
    }
    json.to_string().into()
}

impl Shape for Snowplow {
    fn door(&self) -> Door {
        Door::Snowplow
    }

    fn methods(&self) -> &'static str {
        if self.by_post { "POST, OPTIONS" } else { "GET, OPTIONS" }
    }

    fn cors(&self) -> Cors {
        Cors::EachByName
    }

    fn of_device(&self, head: &Head, policy: Collect) -> Option<Collect> {
        let phone = || client::user_agent(&head.headers).is_some_and(|a| PHONES.iter().any(|p| a.starts_with(p)));
        if !client::is_browser(&head.headers) && !phone() {
            return None;
        }
        Some(if is_anonymous(head) { Collect { client_ip: ClientIp::Drop, ..policy } } else { policy })
    }

    fn sender(&self, house: &House, head: &Head) -> Result<Option<Sender>, Refusal> {
        shape::sender_by_key(house, head, Door::Snowplow)
    }

    fn sender_in(&self, house: &House, head: &Head, parsed: &Parsed) -> Result<Sender, Refusal> {
        let by_app_id = match &parsed.app_id {
            Some(app_id) => house.keys.by_app_id(app_id, Door::Snowplow),
            None => Err(Unauthenticated::Host),
        };
        let host = || client::text(&head.headers, header::HOST.as_str()).or_else(|| head.uri.host());
        let sender = by_app_id.or_else(|unknown| {
            // Where neither is known, the app id is what a person would look for.
            host().and_then(|host| house.keys.by_host(host, Door::Snowplow).ok()).ok_or(unknown)
        });
        Ok(sender?.into())
    }

    fn open(&self, head: &Head, body: Bytes) -> Result<Bytes, Refusal> {
        if self.by_post {
            return Ok(if is_anonymous(head) { anonymous(body) } else { body });
        }
        let named = form_urlencoded::parse(head.query().as_bytes());
        if !is_anonymous(head) {
            return Ok(head.query().to_owned().into());
        }
        let kept = named.filter(|(name, _)| !PERSONAL.contains(&name.as_ref()));
        Ok(form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).finish().into())
    }

    fn parse(&self, _: &Head, body: &Bytes, events: usize) -> Result<Parsed, Malformed> {
        if self.by_post {
            return snowplow::parse(body, events);
        }
        snowplow::parse_query(&String::from_utf8_lossy(body))
    }

    fn originals(&self, _: &Head, body: &Bytes, places: &[usize]) -> Vec<Original> {
        let values = if self.by_post {
            snowplow::originals(body, places)
        } else {
            places.iter().map(|_| snowplow::query_original(&String::from_utf8_lossy(body))).collect()
        };
        shape::originals_of(ORIGINAL, values)
    }

    fn accepted(&self, _: &Head, _: &Account) -> Response {
        if self.by_post {
            return shape::ok("text/plain; charset=utf-8", "ok");
        }
        let headers =
            [(header::CONTENT_TYPE, "image/gif"), (header::CACHE_CONTROL, NO_CACHE), (header::PRAGMA, "no-cache")];
        (headers, PIXEL).into_response()
    }

    /// Trackers send again for ever what was not answered with 2xx, 400, 401, 403, 410 or 422.
    fn status(&self, refusal: &Refusal) -> StatusCode {
        match refusal.http_status() {
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNSUPPORTED_MEDIA_TYPE => StatusCode::UNPROCESSABLE_ENTITY,
            status => status,
        }
    }
}

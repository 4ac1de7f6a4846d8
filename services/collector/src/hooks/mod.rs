//! Webhooks: systems that push their own JSON (a shop, a help desk) and sign it. A YAML file says
//! whose a hook is, how it is signed, and which mapping turns its bodies into events:
//!
//! ```yaml
//! hooks:
//!   - name: shop-orders                 # served at /v1/hooks/shop-orders
//!     tenant: acme
//!     mapping: shopify-orders.yaml      # beside this file
//!     preset: shopify                   # or github, zendesk, stripe, or a signature of your own, below
//!     secrets:                          # any of them is good: add the new one, move the sender, take the old one out
//!       - env: SHOPIFY_SECRET
//!       - file: /run/secrets/shopify-old
//!   - name: help-desk
//!     tenant: acme
//!     mapping: tickets.yaml
//!     secrets: [{ env: DESK_SECRET }]
//!     signature:
//!       header: X-Desk-Signature        # of HMAC-SHA256
//!       prefix: "sha256="               # before the signature; may be left out
//!       encoding: hex                   # or base64
//!       signed: "{timestamp}.{body}"    # or "{body}", which is what is signed if nothing is said
//!       timestamp: { header: X-Desk-Timestamp, format: unix_s, window: 5m }
//! ```
//!
//! A sender's own repeats, and a recorded call that is sent again, carry the ids that the mapping
//! finds, or the ones that the hook's name and the body give: they are dropped as duplicates. Where
//! a time is signed, older calls than the window are refused at once.

mod file;
mod signature;

pub use file::{Hook, HooksError, load};
pub use signature::{Encoding, Pairs, Scheme, SignatureError, Timestamp, TimestampFormat};

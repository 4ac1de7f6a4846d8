//! The sizes that one event may have, wherever it comes in. Segment's published limits where it
//! has one, so that what its clients send fits.

/// An encoded event (Segment: 32 KB).
pub const EVENT_BYTES: usize = 32 * 1024;
/// An event id (Segment's messageId: 100 characters; UUIDs with a prefix fit).
pub const EVENT_ID_BYTES: usize = 128;
/// A customer, anonymous, item or category id.
pub const ID_BYTES: usize = 128;
/// An event's type.
pub const TYPE_BYTES: usize = 64;
/// A segment's name.
pub const SEGMENT_BYTES: usize = 64;
/// How deep `properties` and `traits` may nest.
pub const DEPTH: usize = 16;
/// A tenant's name.
pub const TENANT_BYTES: usize = 64;
/// Events in one batch (Segment: 2,500).
pub const BATCH_EVENTS: usize = 2_500;

//! The names of the protocol's headers, in lower case, and the two lists that CORS needs.

/// The position after what the response covers.
pub const STREAM_NEXT_OFFSET: &str = "stream-next-offset";
/// The cursor of a live response (section 10.1).
pub const STREAM_CURSOR: &str = "stream-cursor";
/// `true` when the response reaches the tail.
pub const STREAM_UP_TO_DATE: &str = "stream-up-to-date";
/// `true` when the stream is closed, or is to be (section 4.1).
pub const STREAM_CLOSED: &str = "stream-closed";
/// `base64` when the data events of an SSE response are encoded so (section 5.8).
pub const STREAM_SSE_DATA_ENCODING: &str = "stream-sse-data-encoding";
/// The sliding time to live, in seconds (section 5.1).
pub const STREAM_TTL: &str = "stream-ttl";
/// The absolute expiry, as an RFC 3339 timestamp (section 5.1).
pub const STREAM_EXPIRES_AT: &str = "stream-expires-at";
/// `public` or `private`: who may see a stream. An extension.
pub const STREAM_VISIBILITY: &str = "stream-visibility";
/// A writer's own sequence, in lexicographic order (section 5.2).
pub const STREAM_SEQ: &str = "stream-seq";
/// The path of the stream to fork (section 4.2).
pub const STREAM_FORKED_FROM: &str = "stream-forked-from";
/// Where to fork (section 4.2).
pub const STREAM_FORK_OFFSET: &str = "stream-fork-offset";
/// How far past the fork offset to fork (section 4.2).
pub const STREAM_FORK_SUB_OFFSET: &str = "stream-fork-sub-offset";
/// Who appends (section 5.2.1).
pub const PRODUCER_ID: &str = "producer-id";
/// The producer's epoch (section 5.2.1).
pub const PRODUCER_EPOCH: &str = "producer-epoch";
/// The number of the append within the epoch (section 5.2.1).
pub const PRODUCER_SEQ: &str = "producer-seq";
/// The number that an append should have had (section 5.2.1).
pub const PRODUCER_EXPECTED_SEQ: &str = "producer-expected-seq";
/// The number that an append had (section 5.2.1).
pub const PRODUCER_RECEIVED_SEQ: &str = "producer-received-seq";
/// What an `EventSource` sends when it reconnects (HTML, section 9.2).
pub const LAST_EVENT_ID: &str = "last-event-id";

/// What is left of a quota (draft-ietf-httpapi-ratelimit-headers-11, section 4).
pub const RATELIMIT: &str = "ratelimit";
/// What quotas there are (draft-ietf-httpapi-ratelimit-headers-11, section 3).
pub const RATELIMIT_POLICY: &str = "ratelimit-policy";

/// Response headers that a script of another origin may see (`Access-Control-Expose-Headers`).
pub const EXPOSED: &[&str] = &[
    STREAM_NEXT_OFFSET,
    STREAM_CURSOR,
    STREAM_UP_TO_DATE,
    STREAM_CLOSED,
    STREAM_SSE_DATA_ENCODING,
    STREAM_TTL,
    STREAM_EXPIRES_AT,
    STREAM_VISIBILITY,
    PRODUCER_EPOCH,
    PRODUCER_SEQ,
    PRODUCER_EXPECTED_SEQ,
    PRODUCER_RECEIVED_SEQ,
    "etag",
    "location",
    "retry-after",
    RATELIMIT,
    RATELIMIT_POLICY,
    "www-authenticate",
];

/// Request headers that a script of another origin may send (`Access-Control-Allow-Headers`).
pub const ALLOWED: &[&str] = &[
    "content-type",
    "authorization",
    "if-none-match",
    LAST_EVENT_ID,
    "cache-control",
    STREAM_TTL,
    STREAM_EXPIRES_AT,
    STREAM_VISIBILITY,
    STREAM_CLOSED,
    STREAM_SEQ,
    STREAM_FORKED_FROM,
    STREAM_FORK_OFFSET,
    STREAM_FORK_SUB_OFFSET,
    PRODUCER_ID,
    PRODUCER_EPOCH,
    PRODUCER_SEQ,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_lists_hold_lower_case_names_once() {
        for list in [EXPOSED, ALLOWED] {
            assert_eq!(list.iter().collect::<HashSet<_>>().len(), list.len());
            assert!(list.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')), "{list:?}");
        }
    }
}

//! Cursors: what keeps caches from handing out one empty answer for ever (protocol, section 10.1).
//!
//! A cursor is the number of a 20-second interval. Clients that poll in the same interval send the same cursor and so
//! the same URL, which a cache can collapse; and as no client is ever answered with its own cursor, none of them meets
//! the same cached answer twice.

/// 2024-10-09T00:00:00Z, where the intervals start, in milliseconds since the Unix epoch.
pub const EPOCH_MS: u64 = 1_728_432_000_000;
/// The length of an interval, in milliseconds.
pub const INTERVAL_MS: u64 = 20_000;
/// How many intervals a cursor is moved on by, at most: an hour.
pub const MAX_JITTER: u64 = 180;

/// The interval at a time; 0 before the first one.
#[must_use]
pub fn interval(now_ms: u64) -> u64 {
    now_ms.saturating_sub(EPOCH_MS) / INTERVAL_MS
}

/// The cursor to answer with: the present interval, or, when the client's own cursor is not behind it, the client's
/// moved on by 1 to [`MAX_JITTER`] intervals, as `jitter` (any number) says.
///
/// It is greater than the client's, but for a client that invents a cursor within an hour of the largest there is.
#[must_use]
pub fn respond(now_ms: u64, client: Option<u64>, jitter: u64) -> u64 {
    let present = interval(now_ms);
    match client {
        Some(client) if client >= present => client.saturating_add(1 + jitter % MAX_JITTER),
        Some(_) | None => present,
    }
}

/// A client's cursor; `None`, as if there were none, for anything but a number.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    crate::digits::lenient(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn intervals_are_counted_from_the_epoch() {
        let table = [
            (0, 0),
            (EPOCH_MS - 1, 0),
            (EPOCH_MS, 0),
            (EPOCH_MS + 19_999, 0),
            (EPOCH_MS + 20_000, 1),
            (1_767_225_600_000, 1_939_680), // 2026-01-01T00:00:00Z
            (u64::MAX, (u64::MAX - EPOCH_MS) / 20_000),
        ];
        for (now_ms, number) in table {
            assert_eq!(interval(now_ms), number, "{now_ms}");
        }
    }

    #[test]
    fn a_client_that_is_not_behind_is_moved_on() {
        let now = EPOCH_MS + 1000 * INTERVAL_MS;
        let table = [
            (None, 0, 1000),
            (None, 77, 1000),
            (Some(0), 77, 1000),
            (Some(999), 77, 1000),
            (Some(1000), 0, 1001),
            (Some(1000), 179, 1180),
            (Some(1000), 180, 1001),
            (Some(5000), 9, 5010),
            (Some(u64::MAX), u64::MAX, u64::MAX),
        ];
        for (client, jitter, answer) in table {
            assert_eq!(respond(now, client, jitter), answer, "{client:?} {jitter}");
        }
    }

    #[test]
    fn a_cursor_that_is_no_number_is_no_cursor() {
        for text in ["", "abc", "-1", "+1", "1.5", "1e3", "18446744073709551616", " 1"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(parse("1939680"), Some(1_939_680));
    }

    proptest! {
        #[test]
        fn a_cursor_never_stands_still_and_never_goes_back(
            now in any::<u64>(), client in 0..u64::MAX - MAX_JITTER, jitter in any::<u64>(),
        ) {
            let answer = respond(now, Some(client), jitter);
            prop_assert!(answer > client && answer >= interval(now));
            prop_assert!(answer == interval(now) || answer - client <= MAX_JITTER);
        }
    }
}

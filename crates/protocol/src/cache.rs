//! `Cache-Control` (protocol, sections 5.5, 5.6, 10 and 12.7; RFC 9111; RFC 5861).
//!
//! Messages never change, so whatever carries them can be cached: a chunk inside the stream, a chunk that reaches the
//! tail, and the end of a closed stream. Section 10.1 is explicit about the tail: a copy that was its last chunk is
//! still right when the stream has grown or closed, because the client goes on at its next offset. That holds only if
//! the answer *there* is fresh, so an empty answer at the tail of an open stream is never stored: a client that goes on
//! where it was finds what it has just written, and one that waits for the end of a stream sees it, whatever caches
//! stand between. (Who reads once more from an *earlier* offset may get the copy of before; `Cache-Control: no-cache` on
//! the request, or going on from there, gives the rest.)
//!
//! Two things limit that. An expiry: no copy outlives the stream, revalidation included. A TTL: reads are use, and a
//! read that a cache answers does not reach the server, so a stream that is read all the time would expire. Such a
//! stream's answers are kept by the reader alone, who asks each time whether they still stand (a `304` is a read that
//! counts).

use std::borrow::Cow;

use crate::{lifetime::Lifetime, visibility::Visibility};

/// How long a copy is fresh, in seconds (section 10.1).
pub const MAX_AGE_SECONDS: u64 = 60;
/// How long after that a copy may serve while a new one is fetched, in seconds (section 10.1).
pub const STALE_SECONDS: u64 = 300;

/// What is answered. A `304` has the value of the answer that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// A catch-up chunk that ends before the tail.
    Chunk,
    /// A catch-up chunk with data that reaches the tail of an open stream.
    TailChunk,
    /// The last chunk of a closed stream, or the empty one behind it. Closed stays closed.
    Final,
    /// An empty catch-up answer at the tail of an open stream.
    EmptyTail,
    /// A catch-up answer to `offset=now`.
    Now,
    /// A long-poll `200`; the URL holds offset and cursor.
    LongPollData,
    /// A long-poll `204`.
    LongPollTimeout,
    /// Server-Sent Events.
    Sse,
    /// A `HEAD`.
    Head,
    /// An error, whichever.
    Error,
}

/// The `Cache-Control` of an answer. `now_ms` is in milliseconds since the Unix epoch, by the clock that decides
/// expiry.
#[must_use]
pub fn cache_control(answer: Answer, lifetime: &Lifetime, visibility: Visibility, now_ms: u64) -> Cow<'static, str> {
    match answer {
        Answer::Chunk | Answer::TailChunk | Answer::Final | Answer::LongPollData => {
            messages(lifetime, visibility, now_ms)
        }
        Answer::EmptyTail | Answer::Now | Answer::LongPollTimeout | Answer::Head | Answer::Error => {
            Cow::Borrowed("no-store")
        }
        // A proxy that compresses would also buffer, and a stream of events must do neither.
        Answer::Sse => Cow::Borrowed(match visibility {
            Visibility::Public => "no-cache, no-transform",
            Visibility::Private => "private, no-cache, no-transform",
        }),
    }
}

fn messages(lifetime: &Lifetime, visibility: Visibility, now_ms: u64) -> Cow<'static, str> {
    let left = match *lifetime {
        Lifetime::Forever => u64::MAX,
        Lifetime::Ttl { .. } => return Cow::Borrowed("private, no-cache"),
        // Rounded down: the last part of a second is not worth a copy that lives too long.
        Lifetime::ExpiresAt { at_ms } => at_ms.saturating_sub(now_ms) / 1000,
    };
    let scope = match visibility {
        Visibility::Public => "public",
        Visibility::Private => "private",
    };
    let fresh = left.min(MAX_AGE_SECONDS);
    let stale = (left - fresh).min(STALE_SECONDS);
    match (fresh, stale) {
        (0, _) => Cow::Borrowed("no-store"),
        (_, 0) => Cow::Owned(format!("{scope}, max-age={fresh}")),
        (MAX_AGE_SECONDS, STALE_SECONDS) => Cow::Borrowed(match visibility {
            Visibility::Public => "public, max-age=60, stale-while-revalidate=300",
            Visibility::Private => "private, max-age=60, stale-while-revalidate=300",
        }),
        (_, _) => Cow::Owned(format!("{scope}, max-age={fresh}, stale-while-revalidate={stale}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000_000;
    const CARRY_MESSAGES: [Answer; 4] = [Answer::Chunk, Answer::TailChunk, Answer::Final, Answer::LongPollData];
    const MUST_BE_FRESH: [Answer; 5] =
        [Answer::EmptyTail, Answer::Now, Answer::LongPollTimeout, Answer::Head, Answer::Error];

    fn lifetimes() -> [Lifetime; 4] {
        [
            Lifetime::Forever,
            Lifetime::Ttl { seconds: 3600 },
            Lifetime::ExpiresAt { at_ms: NOW + 1_000_000 },
            Lifetime::ExpiresAt { at_ms: NOW - 1 },
        ]
    }

    #[test]
    fn answers_with_messages_are_cached_as_the_protocol_asks() {
        for answer in CARRY_MESSAGES {
            let public = cache_control(answer, &Lifetime::Forever, Visibility::Public, NOW);
            assert_eq!(public, "public, max-age=60, stale-while-revalidate=300", "{answer:?}");
            let private = cache_control(answer, &Lifetime::Forever, Visibility::Private, NOW);
            assert_eq!(private, "private, max-age=60, stale-while-revalidate=300", "{answer:?}");
        }
    }

    #[test]
    fn answers_about_the_present_are_never_stored() {
        for answer in MUST_BE_FRESH {
            for lifetime in lifetimes() {
                for visibility in [Visibility::Public, Visibility::Private] {
                    assert_eq!(cache_control(answer, &lifetime, visibility, NOW), "no-store", "{answer:?}");
                }
            }
        }
    }

    #[test]
    fn event_streams_are_neither_cached_nor_transformed() {
        for lifetime in lifetimes() {
            let public = cache_control(Answer::Sse, &lifetime, Visibility::Public, NOW);
            assert_eq!(public, "no-cache, no-transform");
            let private = cache_control(Answer::Sse, &lifetime, Visibility::Private, NOW);
            assert_eq!(private, "private, no-cache, no-transform");
        }
    }

    #[test]
    fn reads_of_a_stream_with_a_ttl_always_reach_the_server() {
        for answer in CARRY_MESSAGES {
            for visibility in [Visibility::Public, Visibility::Private] {
                let value = cache_control(answer, &Lifetime::Ttl { seconds: 86_400 }, visibility, NOW);
                assert_eq!(value, "private, no-cache", "{answer:?}");
            }
        }
    }

    #[test]
    fn no_copy_outlives_an_expiry() {
        let table = [
            (0, "no-store"),
            (999, "no-store"),
            (1000, "public, max-age=1"),
            (59_999, "public, max-age=59"),
            (60_000, "public, max-age=60"),
            (61_500, "public, max-age=60, stale-while-revalidate=1"),
            (359_999, "public, max-age=60, stale-while-revalidate=299"),
            (360_000, "public, max-age=60, stale-while-revalidate=300"),
            (1_000_000_000, "public, max-age=60, stale-while-revalidate=300"),
        ];
        for (left_ms, value) in table {
            let lifetime = Lifetime::ExpiresAt { at_ms: NOW + left_ms };
            assert_eq!(cache_control(Answer::Chunk, &lifetime, Visibility::Public, NOW), value, "{left_ms}");
        }
        let past = Lifetime::ExpiresAt { at_ms: NOW - 1 };
        assert_eq!(cache_control(Answer::Chunk, &past, Visibility::Public, NOW), "no-store");
    }

    proptest! {
        #[test]
        fn freshness_and_staleness_together_end_before_the_stream(left_ms in 0..500_000_u64, now in 0..NOW) {
            let lifetime = Lifetime::ExpiresAt { at_ms: now + left_ms };
            let value = cache_control(Answer::TailChunk, &lifetime, Visibility::Private, now);
            let seconds: u64 = value.split('=').skip(1).map(|part| {
                part.split(',').next().unwrap_or_default().parse::<u64>().unwrap()
            }).sum();
            prop_assert!(seconds * 1000 <= left_ms);
        }
    }
}

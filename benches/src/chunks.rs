//! How many chunks the history of a stream is, counted from the sizes of what stands in it.
//!
//! It is counted here once more, and not asked of the gateway, because it is what the gateway's reads are held against.
//! The rule is that of the history cache: a chunk is what one read of the store brings, of [`RECORDS`] at most, and the
//! next one starts where it ended. S2 ends a unary read before it passes [`BYTES`] of metered size.

/// The most records of a chunk.
pub const RECORDS: u64 = 960;
/// The most bytes that one unary read of S2 brings.
pub const BYTES: u64 = 1024 * 1024;
/// What S2 counts for a record without headers beside its body.
const METERED: u64 = 8;

/// How many records with bodies of so many bytes fit into a chunk; 1 at least.
#[must_use]
pub fn records_of_one(body: u64) -> u64 {
    (BYTES / (body + METERED)).clamp(1, RECORDS)
}

/// How many chunks hold so many records with such bodies.
#[must_use]
pub fn holding(records: u64, body: u64) -> u64 {
    records.div_ceil(records_of_one(body))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_records_fill_a_chunk_by_their_number_and_large_ones_by_their_bytes() {
        assert_eq!([200, 1000, 1084, 1085].map(records_of_one), [960, 960, 960, 959]);
        assert_eq!([BYTES / 2 - 8, BYTES / 2 - 7, BYTES - 8].map(records_of_one), [2, 1, 1]);
    }

    #[test]
    fn no_record_is_left_out_and_none_begins_a_chunk_of_nothing() {
        assert_eq!([0, 1, 960, 961, 20_974].map(|records| holding(records, 1000)), [0, 1, 1, 2, 22]);
    }

    proptest! {
        #[test]
        fn the_chunks_have_room_for_all_and_one_less_has_not(records in 1_u64..100_000, body in 0_u64..BYTES - METERED) {
            let (chunks, each) = (holding(records, body), records_of_one(body));
            prop_assert!(chunks * each >= records && (chunks - 1) * each < records);
            prop_assert!(each <= RECORDS && each * (body + METERED) <= BYTES);
        }
    }
}

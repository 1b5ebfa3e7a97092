//! Where a text can be cut without splitting a character (UTF-8, RFC 3629).
//!
//! Two appends may share one character. A reader who gets the halves in two events sees two replacement characters, so
//! the first half is held back until the second has come.

/// How many leading bytes can be sent: all of them, but for an unfinished character at the end (at most three bytes).
///
/// Only what can still become a character is held back. Bytes that are invalid whatever follows are not: waiting would
/// not mend them.
#[must_use]
pub fn split_complete(bytes: &[u8]) -> usize {
    let longest = bytes.len().min(3);
    // The last byte that is not a continuation byte starts the last character, if anything does.
    let Some(length) = (1..=longest).find(|back| !is_continuation(bytes[bytes.len() - back])) else {
        return bytes.len();
    };
    let start = bytes.len() - length;
    match std::str::from_utf8(&bytes[start..]) {
        Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => start,
        Ok(_) | Err(_) => bytes.len(),
    }
}

/// How many bytes may come behind messages that are held back because they end inside a character. What has not become
/// one by then goes out with replacement characters.
pub const MAX_HELD: usize = 64 * 1024;

/// Whether messages, taken together, end inside a character that what follows can complete.
#[must_use]
pub fn ends_inside<'m>(messages: impl DoubleEndedIterator<Item = &'m [u8]>) -> bool {
    // An unfinished character has three bytes at most, which may lie in as many messages.
    let (mut last, mut length) = ([0; 3], 0);
    for byte in messages.rev().flat_map(|message| message.iter().rev()).take(last.len()) {
        length += 1;
        last[3 - length] = *byte;
    }
    let last = &last[3 - length..];
    split_complete(last) < last.len()
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_character_may_be_spread_over_messages() {
        let table: [(&[&[u8]], bool); 7] = [
            (&[], false),
            (&[b"", b""], false),
            (&[b"a"], false),
            (&[b"a\xe2"], true),
            (&[b"a\xf0", b"", b"\x9f", b"\x98"], true),
            (&[b"a\xf0", b"\x9f", b"\x98", b"\x80"], false),
            (&[b"\xe2", b"\x82\xac"], false),
        ];
        for (messages, inside) in table {
            assert_eq!(ends_inside(messages.iter().copied()), inside, "{messages:?}");
        }
    }

    #[test]
    fn an_unfinished_character_is_held_back_and_garbage_is_not() {
        let table: &[(&[u8], usize)] = &[
            (b"", 0),
            (b"abc", 3),
            ("é".as_bytes(), 2),
            ("€".as_bytes(), 3),
            ("😀".as_bytes(), 4),
            (b"a\xc3", 1),
            (b"a\xe2", 1),
            (b"a\xe2\x82", 1),
            (b"a\xf0", 1),
            (b"a\xf0\x9f", 1),
            (b"a\xf0\x9f\x98", 1),
            (b"\xf0\x9f\x98", 0),
            // Never valid, whatever follows: a stray continuation, an overlong form, a surrogate, beyond U+10FFFF.
            (b"a\x80", 2),
            (b"a\x80\x80\x80\x80", 5),
            (b"a\xc0", 2),
            (b"a\xe0\x80", 3),
            (b"a\xed\xa0", 3),
            (b"a\xf4\x90", 3),
            (b"a\xff", 2),
            (b"\xc3\xa9\x80", 3),
            // An unfinished character that another one follows.
            (b"\xe2\x82a", 3),
            (b"\xe2\x82\xc3", 2),
        ];
        for (bytes, complete) in table {
            assert_eq!(split_complete(bytes), *complete, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_cut_splits_a_character(text in "[a€é😀\u{7ff}\u{800}\u{ffff}]{0,20}", cut in 0..60_usize) {
            let cut = cut.min(text.len());
            let sent = split_complete(&text.as_bytes()[..cut]);
            prop_assert!(text.is_char_boundary(sent));
            prop_assert!(cut - sent < 4);
            prop_assert!(!(sent + 1..=cut).any(|at| text.is_char_boundary(at)), "more was complete");
        }

        #[test]
        fn decoding_in_parts_is_decoding_the_whole(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x80..0xf8_u8], 0..40),
            cut in 0..40_usize,
        ) {
            let sent = split_complete(&bytes[..cut.min(bytes.len())]);
            let parts = format!(
                "{}{}",
                String::from_utf8_lossy(&bytes[..sent]),
                String::from_utf8_lossy(&bytes[sent..]),
            );
            // Cutting garbage may change how many replacement characters stand for it, never the text around it.
            let text = |s: &str| s.replace('\u{fffd}', "");
            prop_assert_eq!(text(&parts), text(&String::from_utf8_lossy(&bytes)));
        }
    }
}

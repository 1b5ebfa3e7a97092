//! From JSON bodies to messages (protocol, section 9.1).
//!
//! A message is the very bytes that were sent: numbers, escapes, key order and inner white space are nobody's to
//! change. So nothing is decoded; bodies are validated (RFC 8259, and UTF-8) and messages are slices of them. The
//! grammar is walked without recursion, so no depth of nesting is dangerous.

use std::fmt;

use bytes::Bytes;
use memchr::memchr2;
use serde::de::{Deserializer as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::bad_request::BadRequest;

/// Splits a body into messages: the elements of an array, one level flattened (section 9.1.2), or the one value that it
/// is. Outer white space is stripped, and `[]` has no messages; whether that is an error depends on the method.
///
/// # Errors
/// [`BadRequest::JsonEncoding`] for what is not UTF-8, [`BadRequest::Json`] for what is not one JSON value.
pub fn split(body: &Bytes) -> Result<Vec<Bytes>, BadRequest> {
    let text = std::str::from_utf8(body).map_err(|error| BadRequest::JsonEncoding { at: error.valid_up_to() })?;
    messages(text, body).map_err(|error| BadRequest::Json { line: error.line(), column: error.column() })
}

/// Whether these bytes are one JSON value, white space around it allowed.
#[must_use]
pub fn is_valid(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// Splits JSON values that are joined by commas, which is how several messages are stored as one body: the inverse of
/// joining what [`split`] returned. White space around the values is stripped.
///
/// The values must be valid; what comes out of others is unspecified, though it is slices of `values` in any case.
#[must_use]
pub fn split_values(values: &Bytes) -> Vec<Bytes> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut at = 0;
    let mut depth = 0_usize;
    while let Some(byte) = values.get(at) {
        match byte {
            b'"' => at = last_of_string(values, at),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                found.push(stripped(values, start, at));
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    if !found.is_empty() || !stripped(values, 0, values.len()).is_empty() {
        found.push(stripped(values, start, values.len()));
    }
    found
}

fn messages(text: &str, body: &Bytes) -> Result<Vec<Bytes>, serde_json::Error> {
    if !text.trim_start_matches(is_space).starts_with('[') {
        let value: &RawValue = serde_json::from_str(text)?;
        return Ok(vec![body.slice_ref(value.get().as_bytes())]);
    }
    let mut parser = serde_json::Deserializer::from_str(text);
    let elements = parser.deserialize_seq(Elements(body))?;
    parser.end()?;
    Ok(elements)
}

/// Collects the elements of an array as slices of the body that is being parsed.
struct Elements<'b>(&'b Bytes);

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = Vec<Bytes>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<Bytes>, A::Error> {
        let mut found = Vec::new();
        while let Some(element) = elements.next_element::<&RawValue>()? {
            found.push(self.0.slice_ref(element.get().as_bytes()));
        }
        Ok(found)
    }
}

/// The index of the quote that ends the string whose first quote is at `start`, or of the last byte.
fn last_of_string(values: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(found) = values.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if values[at] == b'"' {
            return at;
        }
        at += 2;
    }
    values.len() - 1
}

fn stripped(values: &Bytes, start: usize, end: usize) -> Bytes {
    let value = &values[start..end];
    let spaces = |byte: &&u8| is_space(char::from(**byte));
    let leading = value.iter().take_while(spaces).count();
    let trailing = value[leading..].iter().rev().take_while(spaces).count();
    values.slice(start + leading..end - trailing)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split_text(body: &str) -> Result<Vec<String>, BadRequest> {
        split(&Bytes::copy_from_slice(body.as_bytes())).map(texts)
    }

    fn texts(messages: Vec<Bytes>) -> Vec<String> {
        messages.into_iter().map(|message| String::from_utf8(message.to_vec()).unwrap()).collect()
    }

    /// JSON texts as clients write them, with white space inside but not around them.
    fn values() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?",
            r#""([a-z€😀,\[\]{}: ]|\\["\\/bfnrt]|\\u[0-9a-f]{4}){0,8}""#,
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let space = "[ \t\r\n]{0,2}";
            prop_oneof![
                (space, prop::collection::vec(inner.clone(), 0..4), space)
                    .prop_map(|(a, items, b)| format!("[{a}{}{b}]", items.join(&format!("{b},{a}")))),
                (space, prop::collection::vec(inner, 0..4)).prop_map(|(a, items)| {
                    let members: Vec<_> = items.iter().map(|item| format!("{a}\"k\"{a}:{a}{item}{a}")).collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    #[test]
    fn a_body_is_one_message_or_the_elements_of_its_array() {
        let table: &[(&str, &[&str])] = &[
            (r#"{"event":"created"}"#, &[r#"{"event":"created"}"#]),
            (r#"[{"event":"a"}, {"event":"b"}]"#, &[r#"{"event":"a"}"#, r#"{"event":"b"}"#]),
            ("[[1,2], [3,4]]", &["[1,2]", "[3,4]"]),
            ("[[[1,2,3]]]", &["[[1,2,3]]"]),
            ("[]", &[]),
            (" [ \n\t\r ] ", &[]),
            ("[[]]", &["[]"]),
            (" \"a\" ", &["\"a\""]),
            ("null", &["null"]),
            ("0", &["0"]),
            ("\r\n[ 1 ,\n2\t, {\"a\" : [ 1 ] } ] \n", &["1", "2", "{\"a\" : [ 1 ] }"]),
        ];
        for (body, messages) in table {
            assert_eq!(split_text(body).as_deref(), Ok(messages.map_to_owned().as_slice()), "{body:?}");
        }
    }

    #[test]
    fn every_byte_of_a_message_is_kept() {
        let table = [
            "12345678901234567890",
            "1.0",
            "1e2",
            "-0",
            "1E400",
            "0.1000000000000000055511151231257827",
            r#"{"b":1,"a":2,"b":3}"#,
            r#""\u00e9\ud800\/""#,
            "\"é€😀\u{7f}\u{2028}\"",
            "{ \"a\" :\r\n\t[ 1 , 2 ] }",
        ];
        for value in table {
            assert_eq!(split_text(value), Ok(vec![value.to_owned()]));
            assert_eq!(split_text(&format!("[{value}, {value}]")), Ok(vec![value.to_owned(); 2]));
            assert!(is_valid(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let table = [
            "",
            " ",
            "\n",
            "{",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "]",
            "[]]",
            "1 2",
            "{}{}",
            "[1],[2]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "'a'",
            "\"a",
            "\"\n\"",
            "\"\t\"",
            "\"\\x\"",
            "\"\\u12\"",
            "01",
            "+1",
            "1.",
            ".5",
            "1e",
            "0x1",
            "--1",
            "NaN",
            "Infinity",
            "undefined",
            "tru",
            "nulll",
            "True",
            "\u{feff}1",
            "\u{a0}1",
            "1\u{0}",
            "[1]//",
            "{\"a\":{}",
            "[\"a\":1]",
        ];
        for body in table {
            let refused = matches!(split_text(body), Err(BadRequest::Json { .. }));
            assert!(refused, "{body:?} gave {:?}", split_text(body));
            assert!(!is_valid(body.as_bytes()), "{body:?}");
        }
        assert_eq!(split_text("[1,\n2 3]"), Err(BadRequest::Json { line: 2, column: 3 }));
    }

    #[test]
    fn what_is_no_utf8_is_refused_at_its_place() {
        for (body, at) in [(&b"\"\xff\""[..], 1), (b"[\"\xc3\"]", 2), (b"\"\xed\xa0\x80\"", 1), (b"\xef", 0)] {
            assert_eq!(split(&Bytes::from_static(body)), Err(BadRequest::JsonEncoding { at }), "{body:x?}");
            assert!(!is_valid(body));
        }
    }

    #[test]
    fn no_depth_of_nesting_overflows_the_stack() {
        const DEPTH: usize = 1_000_000;
        for open in ["[", "{\"a\":"] {
            let unclosed = Bytes::from(open.repeat(DEPTH));
            assert!(matches!(split(&unclosed), Err(BadRequest::Json { .. })));
            assert!(!is_valid(&unclosed));
        }
        let nested = Bytes::from(format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH)));
        assert!(is_valid(&nested));
        assert_eq!(split_values(&nested), std::slice::from_ref(&nested));
        assert_eq!(split(&nested), Ok(vec![nested.slice(1..nested.len() - 1)]));
    }

    #[test]
    fn joined_values_come_apart_at_their_own_commas() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            (" ", &[]),
            ("1", &["1"]),
            ("1,2", &["1", "2"]),
            (" 1 , [2,3] ,\n{\"a\":1,\"b\":2} ", &["1", "[2,3]", "{\"a\":1,\"b\":2}"]),
            (r#""a,b","\",","\\",[",]"]"#, &[r#""a,b""#, r#""\",""#, r#""\\""#, r#"[",]"]"#]),
        ];
        for (joined, values) in table {
            let found = texts(split_values(&Bytes::copy_from_slice(joined.as_bytes())));
            assert_eq!(found, values.map_to_owned(), "{joined}");
        }
    }

    #[test]
    fn broken_values_are_split_somehow_but_never_panic() {
        for broken in ["\"", "\"\\", "\"\\\"", "]]],", "[[", ",", ",,", "{\"", "\"a\\"] {
            let bytes = Bytes::copy_from_slice(broken.as_bytes());
            let length: usize = split_values(&bytes).iter().map(Bytes::len).sum();
            assert!(length <= broken.len(), "{broken}");
        }
    }

    trait MapToOwned {
        fn map_to_owned(&self) -> Vec<String>;
    }

    impl MapToOwned for [&str] {
        fn map_to_owned(&self) -> Vec<String> {
            self.iter().map(ToString::to_string).collect()
        }
    }

    proptest! {
        #[test]
        fn the_elements_of_an_array_are_the_messages(
            items in prop::collection::vec(values(), 0..6), space in "[ \t\r\n]{0,2}",
        ) {
            let separator = format!("{space},{space}");
            let body = format!("{space}[{space}{}{space}]{space}", items.join(&separator));
            prop_assert_eq!(split_text(&body), Ok(items.clone()));
            let joined = Bytes::from(format!("{space}{}{space}", items.join(&separator)));
            prop_assert_eq!(texts(split_values(&joined)), items);
        }

        #[test]
        fn joining_undoes_splitting(items in prop::collection::vec(values(), 1..6)) {
            let body = Bytes::from(format!("[{}]", items.join(",")));
            let messages = split(&body).unwrap();
            let base = body.as_ptr() as usize..=body.as_ptr() as usize + body.len();
            prop_assert!(messages.iter().all(|m| base.contains(&(m.as_ptr() as usize))), "a message was copied");
            let joined = Bytes::from(messages.join(&b','));
            prop_assert_eq!(&joined[..], &body[1..body.len() - 1]);
            prop_assert_eq!(split_values(&joined), messages);
        }

        #[test]
        fn a_value_that_is_no_array_is_itself_the_message(value in values()) {
            let value = if value.starts_with('[') { format!("{{\"a\":{value}}}") } else { value };
            prop_assert!(is_valid(value.as_bytes()));
            prop_assert_eq!(split_text(&value), Ok(vec![value]));
        }

        #[test]
        fn every_body_is_split_or_refused_as_validation_says(
            body in r#"([\[\]{}:,"\\ 0-9.eE+-]|true|null|\\u00e9|\PC){0,12}"#,
            tail in prop::collection::vec(any::<u8>(), 0..2),
        ) {
            let bytes = Bytes::from([body.as_bytes(), &tail].concat());
            prop_assert_eq!(split(&bytes).is_ok(), is_valid(&bytes));
            for message in split(&bytes).into_iter().flatten() {
                prop_assert!(is_valid(&message));
            }
            let length: usize = split_values(&bytes).iter().map(Bytes::len).sum();
            prop_assert!(length <= bytes.len());
        }
    }
}

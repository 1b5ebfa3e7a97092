//! JSON as it is trusted where rights depend on it: an object is an object, and what is there is not taken for missing.
//!
//! The reader that is derived for a struct takes a list of its members' values, too, and `null` for a member that is left
//! out. Both are other spellings of what has one (RFC 7519, section 7.2, asks for an object).

use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};

/// Reads an object, and nothing else. Members that stand there twice are refused by the derived reader.
///
/// # Errors
/// It is no object, or not of this form.
pub fn object<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    match json.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice(json),
        Some(_) | None => Err(serde_json::Error::custom("not an object")),
    }
}

/// Reads a member that may be missing, but not `null`; for `#[serde(default, deserialize_with = "given")]`.
///
/// # Errors
/// It has another type.
pub fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Read {
        a: u8,
        #[serde(default, deserialize_with = "given")]
        b: Option<u8>,
    }

    #[test]
    fn an_object_is_read_and_no_other_spelling_of_it() {
        let read = |json: &str| object::<Read>(json.as_bytes()).ok();
        assert_eq!(read(r#" {"a":1}"#), Some(Read { a: 1, b: None }));
        assert_eq!(read(r#"{"b":2,"a":1}"#), Some(Read { a: 1, b: Some(2) }));
        for json in ["", " ", "[1]", "[1,2]", " [1,2]", r#"{"a":1,"b":null}"#, r#"{"a":1,"a":1}"#, r#"{"a":1}{"#] {
            assert_eq!(read(json), None, "{json}");
        }
    }
}

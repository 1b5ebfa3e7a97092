//! Messages that say who wrote them: `<writer.number.length.padding>`. The padding is a letter that follows from the
//! rest, as often as the length says, so that a message which was cut, mixed with another or changed is no message.

use serde_json::Value;

/// Which message: whose, and his how many-th.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message {
    /// Who wrote it.
    pub writer: u32,
    /// Counted from 0 by each writer.
    pub number: u32,
}

/// What a stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// `text/plain`: messages one after the other, and one to an append.
    Text,
    /// `application/json`: messages are strings, and an append may have several.
    Json,
}

/// Bytes that are not messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no messages: {excerpt:?}")]
pub struct Malformed {
    /// The start of what is wrong.
    pub excerpt: String,
}

/// How much of what is wrong is told.
const EXCERPT: usize = 80;

impl Message {
    /// The message, with so many bytes of padding.
    #[must_use]
    pub fn text(self, padding: usize) -> String {
        let Self { writer, number } = self;
        format!("<{writer}.{number}.{padding}.{}>", self.letter().to_string().repeat(padding))
    }

    /// The message in a text, if it is one to the last byte.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.strip_prefix('<')?.strip_suffix('>')?.splitn(4, '.');
        let message = Self { writer: fields.next()?.parse().ok()?, number: fields.next()?.parse().ok()? };
        let length: usize = fields.next()?.parse().ok()?;
        let padding = fields.next()?;
        let whole = padding.len() == length && padding.chars().all(|letter| letter == message.letter());
        whole.then_some(message)
    }

    fn letter(self) -> char {
        let letters = "abcdefghijklmnopqrstuvwxyz".as_bytes();
        let at = (u64::from(self.writer) * 7 + u64::from(self.number)) % letters.len() as u64;
        char::from(letters[at as usize])
    }
}

impl Content {
    /// The content type.
    #[must_use]
    pub fn mime(self) -> &'static str {
        match self {
            Self::Text => "text/plain",
            Self::Json => "application/json",
        }
    }

    /// The body that appends these texts. Text has no boundaries, so there it should be one.
    #[must_use]
    pub fn encode(self, texts: Vec<String>) -> Vec<u8> {
        match self {
            Self::Text => texts.concat().into_bytes(),
            Self::Json => Value::from(texts).to_string().into_bytes(),
        }
    }

    /// The messages in what was read. Only whole messages are.
    ///
    /// # Errors
    /// Where it is something else.
    pub fn decode(self, bytes: &[u8]) -> Result<Vec<Message>, Malformed> {
        match self {
            Self::Text => {
                let text = std::str::from_utf8(bytes).map_err(|_| Malformed::of(bytes))?;
                text.split_inclusive('>').map(message).collect()
            }
            Self::Json => {
                let texts: Vec<String> = serde_json::from_slice(bytes).map_err(|_| Malformed::of(bytes))?;
                texts.iter().map(|text| message(text)).collect()
            }
        }
    }

    /// Pages of a stream as one.
    ///
    /// # Errors
    /// Where a page of JSON is no array.
    pub fn join(self, pages: &[impl AsRef<[u8]>]) -> Result<Vec<u8>, Malformed> {
        if self == Self::Text {
            return Ok(pages.iter().flat_map(|page| page.as_ref().iter().copied()).collect());
        }
        let mut whole = vec![b'['];
        for page in pages {
            let page = page.as_ref();
            let inner = page.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
            let inner = inner.ok_or_else(|| Malformed::of(page))?;
            if whole.len() > 1 && !inner.is_empty() {
                whole.push(b',');
            }
            whole.extend_from_slice(inner);
        }
        whole.push(b']');
        Ok(whole)
    }
}

impl Malformed {
    fn of(bytes: &[u8]) -> Self {
        Self { excerpt: String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT)]).into_owned() }
    }
}

fn message(text: &str) -> Result<Message, Malformed> {
    Message::parse(text).ok_or_else(|| Malformed::of(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages() -> impl Strategy<Value = Vec<(Message, usize)>> {
        let one = (0..1_000_u32, 0..100_000_u32, 0..300_usize);
        prop::collection::vec(one.prop_map(|(writer, number, padding)| (Message { writer, number }, padding)), 0..10)
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_in_pages_or_as_a_whole(sent in messages(), cut in 0..10_usize) {
            let messages: Vec<Message> = sent.iter().map(|(message, _)| *message).collect();
            let texts: Vec<String> = sent.iter().map(|(message, padding)| message.text(*padding)).collect();
            for content in [Content::Text, Content::Json] {
                let whole = content.encode(texts.clone());
                prop_assert_eq!(content.decode(&whole), Ok(messages.clone()));
                let (one, other) = texts.split_at(cut.min(texts.len()));
                let pages = [content.encode(one.to_vec()), content.encode(other.to_vec())];
                prop_assert_eq!(content.join(&pages), Ok(whole));
            }
        }

        #[test]
        fn a_message_with_a_byte_less_or_another_is_none(
            (writer, number, padding) in (0..50_u32, 0..50_u32, 1..50_usize),
            at in any::<prop::sample::Index>(),
        ) {
            let text = Message { writer, number }.text(padding);
            let at = at.index(text.len());
            let mut less = text.clone();
            less.remove(at);
            // Digits apart, every byte follows from the others: another digit may be another message.
            if !text.as_bytes()[at].is_ascii_digit() {
                prop_assert_eq!(Message::parse(&less), None);
                let mut other = text;
                other.replace_range(at..=at, "#");
                prop_assert_eq!(Message::parse(&other), None);
            }
        }
    }

    #[test]
    fn what_lies_between_messages_is_not_overlooked() {
        let text = Message { writer: 1, number: 2 }.text(3);
        for bytes in [format!("{text} {text}"), format!("{text},"), format!("x{text}"), text[1..].to_owned()] {
            assert!(Content::Text.decode(bytes.as_bytes()).is_err(), "{bytes}");
        }
        for bytes in [text.clone(), format!("[\"{text}\""), format!("[\"{text}\",1]"), format!("[\"{text} \"]")] {
            assert!(Content::Json.decode(bytes.as_bytes()).is_err(), "{bytes}");
        }
    }

    #[test]
    fn empty_pages_add_nothing() {
        assert_eq!(Content::Json.join(&["[]", "[1]", "[]", "[2]"]), Ok(b"[1,2]".to_vec()));
        assert_eq!(Content::Text.join(&["", "a", "", "b"]), Ok(b"ab".to_vec()));
        assert!(Content::Json.join(&["1"]).is_err());
    }
}

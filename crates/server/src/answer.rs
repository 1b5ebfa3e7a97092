//! Headers of responses, and the bodies of reads that are not Server-Sent Events.

use axum::{body::Body, response::Response};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tailwater_log::Visibility;
use tailwater_protocol::{ContentKind, ContentType, Offset, headers};

/// A response without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The stream's content type, exactly as its creator spelled it: clients compare.
pub(crate) fn set_content_type(headers: &mut HeaderMap, content_type: &ContentType) {
    let value = HeaderValue::from_str(content_type.as_str()).expect("a content type is printable ASCII");
    headers.insert(header::CONTENT_TYPE, value);
}

pub(crate) fn set_next_offset(headers: &mut HeaderMap, next: Offset) {
    headers.insert(headers::STREAM_NEXT_OFFSET, printed(&next));
}

/// `Stream-Up-To-Date`, where true; it is never sent as `false`.
pub(crate) fn set_up_to_date(headers: &mut HeaderMap, up_to_date: bool) {
    if up_to_date {
        headers.insert(headers::STREAM_UP_TO_DATE, HeaderValue::from_static("true"));
    }
}

/// `Stream-Closed`, where true; it is never sent as `false`.
pub(crate) fn set_closed(headers: &mut HeaderMap, closed: bool) {
    if closed {
        headers.insert(headers::STREAM_CLOSED, HeaderValue::from_static("true"));
    }
}

/// Whether caches may give a response to others than who has asked.
pub(crate) fn is_public(headers: &HeaderMap) -> bool {
    headers.get(header::CACHE_CONTROL).is_some_and(|value| value.as_bytes().starts_with(b"public"))
}

/// A header value of something that prints as visible ASCII, such as a number or an offset.
pub(crate) fn printed(value: &impl ToString) -> HeaderValue {
    HeaderValue::try_from(value.to_string()).expect("numbers, offsets and tags are visible ASCII")
}

/// The body of messages: an array in a JSON stream, their bytes in any other.
pub(crate) fn joined(kind: ContentKind, messages: &[Bytes]) -> Bytes {
    let (open, comma, close): (&[u8], &[u8], &[u8]) = match kind {
        ContentKind::Json => (b"[", b",", b"]"),
        ContentKind::Text | ContentKind::Binary => (b"", b"", b""),
    };
    if let ([only], true) = (messages, open.is_empty()) {
        return only.clone();
    }
    let size: usize = messages.iter().map(|message| message.len() + comma.len()).sum();
    let mut body = BytesMut::with_capacity(size + open.len() + close.len());
    body.extend_from_slice(open);
    for (index, message) in messages.iter().enumerate() {
        body.extend_from_slice(if index == 0 { b"" } else { comma });
        body.extend_from_slice(message);
    }
    body.extend_from_slice(close);
    body.freeze()
}

/// Who may keep what was read.
pub(crate) fn visibility(visibility: Visibility) -> tailwater_protocol::Visibility {
    match visibility {
        Visibility::Public => tailwater_protocol::Visibility::Public,
        Visibility::Private => tailwater_protocol::Visibility::Private,
    }
}

/// The same, as a stream's log has it.
pub(crate) fn in_log(visibility: tailwater_protocol::Visibility) -> Visibility {
    match visibility {
        tailwater_protocol::Visibility::Public => Visibility::Public,
        tailwater_protocol::Visibility::Private => Visibility::Private,
    }
}

/// `Stream-Visibility`.
pub(crate) fn set_visibility(headers: &mut HeaderMap, of: Visibility) {
    headers.insert(headers::STREAM_VISIBILITY, HeaderValue::from_static(visibility(of).as_str()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_an_array_in_a_json_stream_and_their_bytes_in_any_other() {
        let table = [
            (ContentKind::Json, vec![], "[]"),
            (ContentKind::Json, vec!["1"], "[1]"),
            (ContentKind::Json, vec!["1,2", "[3]"], "[1,2,[3]]"),
            (ContentKind::Text, vec![], ""),
            (ContentKind::Text, vec!["ab"], "ab"),
            (ContentKind::Binary, vec!["ab", "\u{ff}"], "ab\u{ff}"),
        ];
        for (kind, messages, body) in table {
            let messages: Vec<_> = messages.into_iter().map(Bytes::from).collect();
            assert_eq!(joined(kind, &messages), body, "{kind:?}");
        }
    }
}

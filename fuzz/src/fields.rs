//! Headers of requests, one a line.

use http::HeaderValue;
use tailwater_protocol::{
    ContentKind, ContentType, ETag, ForkOffset, ForkRequest, Lifetime, Offset, Producer, StreamSeq, Visibility, closed,
    content_type::MAX_CONTENT_TYPE,
    etag::if_none_match_matches,
    headers,
    lifetime::{MAX_EXPIRES_AT_MS, MAX_TTL_SECONDS},
    producer::{MAX_PRODUCER_ID, MAX_PRODUCER_INTEGER, MAX_STREAM_SEQ},
};

use crate::{
    input::{Pieces, lines},
    names::is_safe_to_say,
};

pub(crate) fn content_type(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let read = match ContentType::parse(text) {
        Ok(read) => read,
        Err(error) => return is_safe_to_say(&error),
    };
    assert_eq!(read.as_str(), text);
    assert!(text.len() <= MAX_CONTENT_TYPE && text.is_ascii());
    // It is sent back as it stands.
    assert!(HeaderValue::from_str(text).is_ok());
    let essence = text.split(';').next().unwrap_or_default().trim_end_matches([' ', '\t']);
    let bare = ContentType::parse(essence).expect("a media type is one without its parameters");
    let shouted = ContentType::parse(&essence.to_uppercase()).expect("case makes no difference");
    for other in [&bare, &shouted] {
        assert!(read.same_media_type(other) && other.same_media_type(&read));
        assert_eq!(read.kind(), other.kind());
    }
    let essence = essence.to_lowercase();
    assert_eq!(read.kind() == ContentKind::Json, essence == "application/json");
    assert_eq!(read.kind() == ContentKind::Text, essence.starts_with("text/"));
}

/// The headers of a `PUT`: TTL, expiry, visibility, closure, and the three of a fork.
pub(crate) fn creation(data: &[u8]) {
    let [ttl, expires_at, visibility, closure, from, offset, sub] = lines(data);
    match Lifetime::from_headers(ttl.as_deref(), expires_at.as_deref()) {
        Ok(lifetime) => is_within_bounds(lifetime),
        Err(error) => is_safe_to_say(&error),
    }
    let visibility = visibility.unwrap_or_default();
    match Visibility::parse(&visibility) {
        Ok(read) => assert_eq!(read.as_str(), visibility.to_lowercase()),
        Err(error) => is_safe_to_say(&error),
    }
    let closure = closure.unwrap_or_default();
    assert_eq!(closed::is_closed_value(&closure), closure.to_lowercase() == "true");
    match ForkRequest::from_headers(from.as_deref(), offset.as_deref(), sub.as_deref()) {
        Ok(None) => assert!(from.is_none() && offset.is_none() && sub.is_none()),
        Ok(Some(fork)) => {
            let offset = fork.offset.map(|offset| match offset {
                ForkOffset::Start => "-1".to_owned(),
                ForkOffset::At(offset) => offset.to_string(),
            });
            let sub = fork.sub_offset.to_string();
            let again = ForkRequest::from_headers(Some(&fork.source), offset.as_deref(), Some(&sub));
            assert_eq!(again, Ok(Some(fork)));
        }
        Err(error) => is_safe_to_say(&error),
    }
}

fn is_within_bounds(lifetime: Lifetime) {
    match lifetime {
        Lifetime::Forever => {}
        Lifetime::Ttl { seconds } => assert!(seconds <= MAX_TTL_SECONDS),
        Lifetime::ExpiresAt { at_ms } => assert!(at_ms <= MAX_EXPIRES_AT_MS),
    }
    let header = lifetime.to_header();
    let value = |name: &str| header.as_ref().filter(|(own, _)| *own == name).map(|(_, value)| value.as_str());
    let again = Lifetime::from_headers(value(headers::STREAM_TTL), value(headers::STREAM_EXPIRES_AT));
    assert_eq!(again, Ok(lifetime));
}

pub(crate) fn producer(data: &[u8]) {
    let [id, epoch, seq, stream_seq] = lines(data);
    match Producer::from_headers(id.as_deref(), epoch.as_deref(), seq.as_deref()) {
        Ok(None) => assert!(id.is_none() && epoch.is_none() && seq.is_none()),
        Ok(Some(producer)) => {
            assert!((1..=MAX_PRODUCER_ID).contains(&producer.id.as_str().len()));
            assert!(producer.epoch <= MAX_PRODUCER_INTEGER && producer.seq <= MAX_PRODUCER_INTEGER);
            let (epoch, seq) = (producer.epoch.to_string(), producer.seq.to_string());
            let again = Producer::from_headers(Some(producer.id.as_str()), Some(&epoch), Some(&seq));
            assert_eq!(again, Ok(Some(producer)));
        }
        Err(error) => is_safe_to_say(&error),
    }
    let value = stream_seq.as_ref().map_or(&[][..], |value| value.as_bytes());
    match StreamSeq::new(value) {
        Ok(seq) => assert_eq!(seq.as_bytes(), value),
        Err(error) => {
            assert!(value.len() > MAX_STREAM_SEQ);
            is_safe_to_say(&error);
        }
    }
}

/// Three bytes that make a tag, and a value of `If-None-Match`.
pub(crate) fn etag(data: &[u8]) {
    let mut pieces = Pieces(data);
    let mut number = || u64::from(pieces.byte().unwrap_or_default());
    let (birth, seq, how) = (number(), number(), number());
    let next = Offset { birth, seq };
    let tag = ETag::new(birth, (how & 1 == 1).then_some(Offset { birth, seq: 0 }), next, how & 2 == 2);
    let Ok(header) = str::from_utf8(pieces.0) else { return };

    let matches = if_none_match_matches(header, tag.as_str());
    assert!(!matches || header.trim_matches([' ', '\t']) == "*" || header.contains(tag.as_str()));
    assert!(if_none_match_matches(tag.as_str(), tag.as_str()));
    assert!(if_none_match_matches(&format!("W/{tag}"), tag.as_str()));
    // Where a list is read to its end, what is put there is found; where it is not, nothing behind it is.
    let probe = "\"probe\"";
    if !header.contains(probe) {
        let is_list = if_none_match_matches(&format!("{header},{probe}"), probe);
        let named = matches && header.trim_matches([' ', '\t']) != "*";
        assert_eq!(if_none_match_matches(&format!("{header},{tag}"), tag.as_str()), is_list || named);
    }
    // The opposite of a closed tag is never found in its place.
    let other = ETag::new(birth, (how & 1 == 1).then_some(Offset { birth, seq: 0 }), next, how & 2 == 0);
    assert!(!if_none_match_matches(tag.as_str(), other.as_str()));
}

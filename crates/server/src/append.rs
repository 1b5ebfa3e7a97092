//! `POST`: append, close, or both (protocol, sections 5.2, 5.2.1 and 5.3).
//!
//! What is malformed is refused first; what conflicts with the stream is for the gateway to say, closure before all
//! else.

use axum::{extract::Request, response::Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tailwater_fanout::{Appended, Post};
use tailwater_protocol::{BadRequest, ContentType, Offset, Producer, headers};

use crate::{answer, app::App, create::split, permit::Permit, problem::Problem, request::Fields};

pub(crate) async fn post(app: &App, permit: Permit, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let fields = Fields(&parts.headers);
    let close = fields.closes()?;
    let producer = fields.producer()?;
    let stream_seq = fields.stream_seq()?;

    let body = permit.receive(app, &parts.headers, body).await?;
    let (content_type, messages) = content(fields, &body.bytes, close)?;
    let with_data = !messages.is_empty();

    let post = Post { messages, content_type, producer: producer.clone(), stream_seq, close };
    let appended = app.gateway.append(&permit.key, post).await?;
    Ok(appended_response(&appended, producer.as_ref(), with_data))
}

/// What is to be appended. A close without data ignores whatever content type a client's library has put there.
fn content(fields: Fields<'_>, body: &Bytes, close: bool) -> Result<(Option<ContentType>, Vec<Bytes>), Problem> {
    if body.is_empty() {
        return if close { Ok((None, Vec::new())) } else { Err(BadRequest::EmptyBody.into()) };
    }
    let content_type = fields.content_type()?.ok_or(BadRequest::MissingContentType)?;
    let messages = split(content_type.kind(), body)?;
    if messages.is_empty() {
        return Err(BadRequest::EmptyArray.into());
    }
    Ok((Some(content_type), messages))
}

fn appended_response(appended: &Appended, producer: Option<&Producer>, with_data: bool) -> Response {
    match (appended, producer) {
        (Appended::Landed { next, closed }, None) => answered(StatusCode::NO_CONTENT, *next, *closed),
        (Appended::Landed { next, closed }, Some(producer)) => {
            let status = if with_data { StatusCode::OK } else { StatusCode::NO_CONTENT };
            let mut response = answered(status, *next, *closed);
            echo(response.headers_mut(), producer.epoch, producer.seq);
            response
        }
        (Appended::Duplicate { highest, next, closed }, producer) => {
            let mut response = answered(StatusCode::NO_CONTENT, *next, *closed);
            if let Some(producer) = producer {
                echo(response.headers_mut(), producer.epoch, *highest);
            }
            response
        }
        (Appended::AlreadyClosed { next }, _) => answered(StatusCode::NO_CONTENT, *next, true),
    }
}

fn answered(status: StatusCode, next: Offset, closed: bool) -> Response {
    let mut response = answer::empty(status);
    answer::set_next_offset(response.headers_mut(), next);
    answer::set_closed(response.headers_mut(), closed);
    response
}

fn echo(headers: &mut HeaderMap, epoch: u64, seq: u64) {
    headers.insert(headers::PRODUCER_EPOCH, answer::printed(&epoch));
    headers.insert(headers::PRODUCER_SEQ, answer::printed(&seq));
}

#[cfg(test)]
mod tests {
    use tailwater_protocol::ProducerId;

    use super::*;

    const NEXT: Offset = Offset { birth: 1, seq: 5 };

    #[test]
    fn every_outcome_has_its_status_and_headers() {
        let producer = Producer { id: ProducerId::new("p").unwrap(), epoch: 2, seq: 3 };
        let landed = |closed| Appended::Landed { next: NEXT, closed };
        let duplicate = Appended::Duplicate { highest: 7, next: NEXT, closed: false };
        let table = [
            (landed(false), None, true, 204, None, false),
            (landed(true), None, false, 204, None, true),
            (landed(false), Some(&producer), true, 200, Some("3"), false),
            (landed(true), Some(&producer), true, 200, Some("3"), true),
            (landed(true), Some(&producer), false, 204, Some("3"), true),
            (duplicate, Some(&producer), true, 204, Some("7"), false),
            (Appended::AlreadyClosed { next: NEXT }, None, false, 204, None, true),
        ];
        for (appended, producer, with_data, status, seq, closed) in table {
            let response = appended_response(&appended, producer, with_data);
            let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(response.status(), status, "{appended:?}");
            assert_eq!(header(headers::STREAM_NEXT_OFFSET), Some(NEXT.to_string()));
            assert_eq!(header(headers::PRODUCER_SEQ).as_deref(), seq, "{appended:?}");
            assert_eq!(header(headers::PRODUCER_EPOCH).as_deref(), seq.map(|_| "2"));
            assert_eq!(header(headers::STREAM_CLOSED).as_deref(), closed.then_some("true"), "{appended:?}");
        }
    }

    #[test]
    fn what_is_malformed_is_refused_by_name() {
        let json = HeaderMap::from_iter([(http::header::CONTENT_TYPE, "application/json".parse().unwrap())]);
        let wrong = HeaderMap::from_iter([(http::header::CONTENT_TYPE, "nonsense".parse().unwrap())]);
        let none = HeaderMap::new();
        let table = [
            (&json, "[1,2]".into(), false, Ok(2)),
            (&json, " [ ] ".into(), false, Err("empty_array")),
            (&json, "[]".into(), true, Err("empty_array")),
            (&json, "{".into(), false, Err("invalid_json")),
            (&json, Bytes::from_static(b"\"\xff\""), false, Err("invalid_json")),
            (&none, "x".into(), true, Err("missing_content_type")),
            (&wrong, "x".into(), false, Err("invalid_content_type")),
            (&none, Bytes::new(), false, Err("empty_body")),
            (&wrong, Bytes::new(), true, Ok(0)),
        ];
        for (headers, body, close, expected) in table {
            let content = content(Fields(headers), &body, close);
            let seen = content.as_ref().map(|(_, messages)| messages.len()).map_err(Problem::code);
            assert_eq!(seen, expected, "{body:?}");
        }
    }
}

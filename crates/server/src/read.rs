//! `GET` and `HEAD`: what is there (protocol, sections 5.5, 5.6, 8 and 10.1).

use axum::{extract::Request, response::Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use tailwater_fanout::{Head, Page};
use tailwater_protocol::{
    Answer, ETag, Offset, ReadMode, ReadOffset, ReadQuery, cache::cache_control, etag::if_none_match_matches, headers,
};

use crate::{
    answer, app::App, event_source, handover::Pass, long_poll, permit::Permit, problem::Problem, request::Fields, sse,
    turns::in_turns,
};

/// What a read found: a stretch of a stream that goes into one response.
pub(crate) struct Found<'f> {
    pub(crate) head: &'f Head,
    /// Where the client asked from.
    pub(crate) from: ReadOffset,
    pub(crate) messages: &'f [Bytes],
    pub(crate) next: Offset,
    pub(crate) up_to_date: bool,
    pub(crate) closed: bool,
    /// Of a live response.
    pub(crate) cursor: Option<u64>,
}

pub(crate) async fn get(app: &App, permit: Permit, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let fields = Fields(&parts.headers);
    let query = ReadQuery::parse(parts.uri.query(), fields.last_event_id())?;
    let from = query.offset.unwrap_or(ReadOffset::Start);
    match query.mode {
        ReadMode::CatchUp => {
            permit.look(app).await?;
            let page = match app.gateway.read(&permit.key, from).await {
                Ok(page) => page,
                Err(error) => return Err(permit.failed(app, error).await),
            };
            permit.sees(&page.head)?;
            Ok(found(app, &of_page(&page, from, None), fields.if_none_match().as_deref()))
        }
        ReadMode::LongPoll => {
            let (app, standing) = (app.clone(), permit.standing(app));
            let if_none_match = fields.if_none_match();
            let wait = long_poll::Wait { app, permit, standing, from, cursor: query.cursor, if_none_match };
            long_poll::get(wait, Pass::of(&parts.extensions)).await
        }
        ReadMode::Sse => {
            let follow = sse::Follow { permit, from, cursor: query.cursor, resumed: query.resumed };
            let response = sse::get(app, follow, Pass::of(&parts.extensions)).await;
            response.or_else(|problem| Ok(event_source::refuse(problem, &parts.headers, app.ambient)))
        }
    }
}

pub(crate) async fn head(app: &App, permit: Permit) -> Result<Response, Problem> {
    let head = match app.gateway.head(&permit.key).await {
        Ok(head) => head,
        Err(error) => return Err(permit.failed(app, error).await),
    };
    permit.sees(&head)?;
    if !permit.is_settled() {
        permit.charge(app)?;
    }
    let mut response = answer::empty(StatusCode::OK);
    let headers = response.headers_mut();
    answer::set_content_type(headers, &head.content_type);
    answer::set_next_offset(headers, head.tail);
    answer::set_closed(headers, head.closed);
    answer::set_visibility(headers, head.visibility);
    if let Some((name, value)) = head.lifetime.to_header() {
        headers.insert(name, answer::printed(&value));
    }
    headers.insert(header::CACHE_CONTROL, cache_value(app, Answer::Head, &head));
    Ok(response)
}

pub(crate) fn of_page(page: &Page, from: ReadOffset, cursor: Option<u64>) -> Found<'_> {
    Found {
        head: &page.head,
        from,
        messages: &page.messages,
        next: page.next,
        up_to_date: page.up_to_date,
        closed: page.up_to_date && page.head.closed,
        cursor,
    }
}

/// The `200` of what was found, or the `304` where the client has it.
pub(crate) fn found(app: &App, found: &Found<'_>, if_none_match: Option<&str>) -> Response {
    let etag = found.etag();
    let known =
        etag.as_ref().zip(if_none_match).is_some_and(|(etag, known)| if_none_match_matches(known, etag.as_str()));
    let mut response = if known {
        answer::empty(StatusCode::NOT_MODIFIED)
    } else {
        let body = answer::joined(found.head.content_type.kind(), found.messages);
        app.metrics.sent_bytes(body.len());
        Response::new(in_turns(app, body))
    };
    let headers = response.headers_mut();
    if !known {
        answer::set_content_type(headers, &found.head.content_type);
    }
    answer::set_next_offset(headers, found.next);
    answer::set_up_to_date(headers, found.up_to_date);
    answer::set_closed(headers, found.closed);
    if let Some(cursor) = found.cursor.filter(|_| !found.closed) {
        headers.insert(headers::STREAM_CURSOR, answer::printed(&cursor));
    }
    if let Some(etag) = etag {
        headers.insert(header::ETAG, answer::printed(&etag));
    }
    headers.insert(header::CACHE_CONTROL, cache_value(app, found.answer(), found.head));
    response
}

pub(crate) fn cache_value(app: &App, answer: Answer, head: &Head) -> HeaderValue {
    let value = cache_control(answer, &head.lifetime, answer::visibility(head.visibility), app.ambient.now());
    HeaderValue::from_str(&value).expect("cache rules are visible ASCII")
}

impl Found<'_> {
    /// The tag of the response; of `now` there is none, because what that means moves.
    fn etag(&self) -> Option<ETag> {
        let start = match self.from {
            ReadOffset::Now => return None,
            ReadOffset::Start => None,
            ReadOffset::At(offset) => Some(offset),
        };
        Some(ETag::new(self.head.birth, start, self.next, self.closed))
    }

    fn answer(&self) -> Answer {
        match (self.from, self.cursor) {
            (ReadOffset::Now, _) => Answer::Now,
            (ReadOffset::Start | ReadOffset::At(_), Some(_)) => Answer::LongPollData,
            (ReadOffset::Start | ReadOffset::At(_), None) if self.closed => Answer::Final,
            (ReadOffset::Start | ReadOffset::At(_), None) if !self.up_to_date => Answer::Chunk,
            (ReadOffset::Start | ReadOffset::At(_), None) if self.messages.is_empty() => Answer::EmptyTail,
            (ReadOffset::Start | ReadOffset::At(_), None) => Answer::TailChunk,
        }
    }
}

//! `GET ?live=long-poll`: what is there, or else what comes next (protocol, section 5.7).

use axum::response::Response;
use http::{StatusCode, header};
use tailwater_fanout::{Event, OpError, Reader};
use tailwater_log::{Misplaced, Refusal};
use tailwater_protocol::{Answer, Offset, ReadOffset, cursor, headers};
use tailwater_upstream::StreamKey;
use tokio::time::{Instant, sleep_until};

use crate::{
    answer,
    app::App,
    metrics::Alive,
    problem::Problem,
    read::{self, Found},
};

/// What is waited for.
pub(crate) struct Wait<'w> {
    pub(crate) key: &'w StreamKey,
    pub(crate) from: ReadOffset,
    /// The cursor of the client's last response.
    pub(crate) cursor: Option<u64>,
}

pub(crate) async fn get(app: &App, wait: Wait<'_>, if_none_match: Option<&str>) -> Result<Response, Problem> {
    let turn = app.drain.enter(app.ambient.share())?;
    let deadline = Instant::now() + app.config.long_poll_timeout;
    let mut reader = app.gateway.follow(wait.key, wait.from).await?;
    if reader.is_closed() {
        return Ok(nothing(app, &wait, &reader, reader.position(), true));
    }
    let _waits = Alive::new(&app.metrics.long_polls);
    loop {
        let event = tokio::select! {
            biased;
            // What has come is given out, however late it is.
            event = reader.next() => event,
            () = sleep_until(deadline) => return timed_out(app, &wait, &reader, if_none_match).await,
            () = turn.comes() => return timed_out(app, &wait, &reader, if_none_match).await,
        };
        match event {
            Event::Messages(delivery) if delivery.messages.is_empty() => {
                if delivery.closed {
                    return Ok(nothing(app, &wait, &reader, delivery.next, true));
                }
            }
            Event::Messages(delivery) => {
                let found = Found {
                    head: reader.head(),
                    from: wait.from,
                    messages: &delivery.messages,
                    next: delivery.next,
                    up_to_date: delivery.up_to_date,
                    closed: delivery.closed,
                    cursor: Some(wait.answer_cursor(app)),
                };
                return Ok(read::found(app, &found, if_none_match));
            }
            Event::Reset { earliest } => return Err(OpError::from(Misplaced::Gone { earliest }).into()),
            Event::Gone => return Err(gone(app, wait.key).await),
            Event::Failed(error) => return Err(error.into()),
        }
    }
}

/// Nothing came. What is known of the tail may be as old as the read session's last sign of life, so where that is too
/// long ago, the store is asked.
async fn timed_out(
    app: &App,
    wait: &Wait<'_>,
    reader: &Reader,
    if_none_match: Option<&str>,
) -> Result<Response, Problem> {
    if reader.is_caught_up() && reader.is_fresh() {
        return Ok(nothing(app, wait, reader, reader.position(), false));
    }
    let page = app.gateway.read(wait.key, ReadOffset::At(reader.position())).await?;
    if page.messages.is_empty() && page.up_to_date {
        return Ok(nothing(app, wait, reader, page.next, page.head.closed));
    }
    let found = read::of_page(&page, wait.from, Some(wait.answer_cursor(app)));
    Ok(read::found(app, &found, if_none_match))
}

/// The `204`.
fn nothing(app: &App, wait: &Wait<'_>, reader: &Reader, next: Offset, closed: bool) -> Response {
    let mut response = answer::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    answer::set_next_offset(headers, next);
    answer::set_up_to_date(headers, true);
    answer::set_closed(headers, closed);
    if !closed {
        headers.insert(headers::STREAM_CURSOR, answer::printed(&wait.answer_cursor(app)));
    }
    headers.insert(header::CACHE_CONTROL, read::cache_value(app, Answer::LongPollTimeout, reader.head()));
    response
}

/// What became of a stream that went away under its reader.
async fn gone(app: &App, key: &StreamKey) -> Problem {
    match app.gateway.head(key).await {
        Err(error) => error.into(),
        // Created again meanwhile; what was waited for has gone all the same.
        Ok(_) => OpError::from(Refusal::NotFound).into(),
    }
}

impl Wait<'_> {
    fn answer_cursor(&self, app: &App) -> u64 {
        cursor::respond(app.ambient.now(), self.cursor, (app.ambient.random)())
    }
}

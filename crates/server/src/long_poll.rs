//! `GET ?live=long-poll`: what is there, or else what comes next (protocol, section 5.7).

use std::{sync::Arc, time::Duration};

use axum::response::Response;
use http::{StatusCode, header};
use tailwater_fanout::{Delivery, Event, Head, Reader, Stands, Wake};
use tailwater_log::Refusal;
use tailwater_protocol::{Answer, Offset, ReadOffset, cursor, headers};
use tokio::time::{Instant, sleep_until};

use crate::{
    admission::Place,
    answer,
    app::App,
    drain::{Draining, Turn},
    handover::Pass,
    metrics::Alive,
    permit::{Followed, Permit},
    problem::Problem,
    quota::Attendance,
    read::{self, Found},
    standing::{Standing, end_of},
};

/// Longer than any rounding of times.
const A_MOMENT: Duration = Duration::from_millis(2);

/// What is waited for.
pub(crate) struct Wait {
    pub(crate) app: App,
    pub(crate) permit: Permit,
    /// What it stands on; nothing, where everybody may do everything.
    pub(crate) standing: Option<Arc<Standing>>,
    pub(crate) from: ReadOffset,
    /// The cursor of the client's last response.
    pub(crate) cursor: Option<u64>,
    pub(crate) if_none_match: Option<String>,
}

/// A long-poll that is under way.
pub(crate) struct Poll {
    wait: Wait,
    reader: Reader,
    stay: Stay,
}

/// What a long-poll holds for as long as it lasts, whoever waits for it.
struct Stay {
    deadline: Instant,
    turn: Turn,
    /// Its client's, where it does not wait in the HTTP library.
    place: Option<Arc<Place>>,
    /// What it holds of quotas, where tokens are asked for.
    _attendance: Option<Box<Attendance>>,
    _waits: Alive,
}

/// A long-poll that waits at a delivery shard.
pub(crate) struct Parked {
    wait: Wait,
    stay: Stay,
}

pub(crate) async fn get(wait: Wait, pass: Option<Pass>) -> Result<Response, Problem> {
    let app = &wait.app;
    let turn = app.drain.enter(app.ambient.share())?;
    let deadline = Instant::now() + app.config.long_poll_timeout;
    let Followed { reader, attendance } = tokio::select! {
        biased;
        () = turn.comes() => return Err(Draining.into()),
        followed = wait.permit.follow(app, wait.from) => followed?,
    };
    // Joining may have taken a while.
    wait.check()?;
    if reader.is_closed() {
        return Ok(wait.nothing(reader.head(), reader.position(), true));
    }
    let waits = Alive::new(&app.metrics.long_polls);
    let stay = Stay { deadline, turn, place: None, _attendance: attendance, _waits: waits };
    let mut poll = Poll { wait, reader, stay };
    match pass {
        Some(pass) if poll.reader.is_caught_up() => {
            poll.stay.place = pass.place;
            pass.exit.park(poll, pass.observed);
            // The connection takes its socket away, and drops this.
            std::future::pending().await
        }
        Some(_) | None => poll.answer().await,
    }
}

impl Poll {
    /// The poll without its reader, which goes ahead to a shard.
    pub(crate) fn park(self) -> (Parked, Reader) {
        (Parked { wait: self.wait, stay: self.stay }, self.reader)
    }

    async fn answer(self) -> Result<Response, Problem> {
        let Self { wait, mut reader, stay } = self;
        let mut vigil = wait.standing.clone().map(Standing::vigil);
        loop {
            let event = tokio::select! {
                biased;
                refusal = end_of(&mut vigil) => return Err(refusal.into()),
                // What has come is given out, however late it is.
                event = reader.next() => event,
                () = sleep_until(stay.deadline) => return wait.timed_out(&reader).await,
                () = stay.turn.comes() => return wait.timed_out(&reader).await,
            };
            match event {
                Event::Messages(delivery) => {
                    if let Some(response) = wait.delivered(reader.head(), &delivery) {
                        return Ok(response);
                    }
                }
                Event::Reset { .. } | Event::Gone => return Err(wait.gone(reader.position()).await),
                Event::Failed(error) => return Err(error.into()),
            }
        }
    }
}

impl Parked {
    /// Until when it waits.
    pub(crate) fn deadline(&self) -> Instant {
        // A moment later than its token lasts, so that it has expired however times are rounded.
        let expires = self.wait.standing.as_ref().and_then(|standing| standing.ends_at()?.checked_add(A_MOMENT));
        expires.map_or(self.stay.deadline, |expires| expires.min(self.stay.deadline))
    }

    /// What it stands on; nothing, where everybody may do everything.
    pub(crate) fn standing(&self) -> Option<&Standing> {
        self.wait.standing.as_deref()
    }

    /// The answer to a long-poll that a shard has woken.
    pub(crate) async fn answer(self, wake: Wake, stands: &Stands) -> Result<Response, Problem> {
        let Self { wait, stay } = self;
        wait.check()?;
        match wake {
            Wake::TimedOut { is_fresh: true } => return Ok(wait.nothing(stands.head(), stands.position(), false)),
            Wake::TimedOut { is_fresh: false } => return wait.asked(stands.position()).await,
            Wake::News(delivery) => {
                if let Some(response) = wait.delivered(stands.head(), &delivery) {
                    return Ok(response);
                }
            }
            Wake::Moved => {}
        }
        let reader = Reader::resume(wait.app.gateway.clone(), stands);
        Poll { wait, reader, stay }.answer().await
    }
}

impl Wait {
    /// Whether it may be answered now with what is there.
    fn check(&self) -> Result<(), Problem> {
        Ok(self.standing.as_deref().map_or(Ok(()), Standing::check)?)
    }

    /// What a delivery makes of the wait; nothing, where it goes on.
    fn delivered(&self, head: &Head, delivery: &Delivery) -> Option<Response> {
        if delivery.messages.is_empty() {
            return delivery.closed.then(|| self.nothing(head, delivery.next, true));
        }
        let found = Found {
            head,
            from: self.from,
            messages: &delivery.messages,
            next: delivery.next,
            up_to_date: delivery.up_to_date,
            closed: delivery.closed,
            cursor: Some(self.answer_cursor()),
        };
        Some(read::found(&self.app, &found, self.if_none_match.as_deref()))
    }

    /// Nothing came. What is known of the tail may be as old as the read session's last sign of life, so where that is
    /// too long ago, the store is asked.
    async fn timed_out(&self, reader: &Reader) -> Result<Response, Problem> {
        if reader.is_caught_up() && reader.is_fresh() {
            return Ok(self.nothing(reader.head(), reader.position(), false));
        }
        self.asked(reader.position()).await
    }

    async fn asked(&self, position: Offset) -> Result<Response, Problem> {
        let page = match self.app.gateway.read(&self.permit.key, ReadOffset::At(position)).await {
            Ok(page) => page,
            Err(error) => return Err(self.permit.failed(&self.app, error).await),
        };
        // The store may have taken a while.
        self.check()?;
        self.permit.sees(&page.head)?;
        if page.messages.is_empty() && page.up_to_date {
            return Ok(self.nothing(&page.head, page.next, page.head.closed));
        }
        let found = read::of_page(&page, self.from, Some(self.answer_cursor()));
        Ok(read::found(&self.app, &found, self.if_none_match.as_deref()))
    }

    /// The `204`.
    fn nothing(&self, head: &Head, next: Offset, closed: bool) -> Response {
        let mut response = answer::empty(StatusCode::NO_CONTENT);
        let headers = response.headers_mut();
        answer::set_next_offset(headers, next);
        answer::set_up_to_date(headers, true);
        answer::set_closed(headers, closed);
        if !closed {
            headers.insert(headers::STREAM_CURSOR, answer::printed(&self.answer_cursor()));
        }
        headers.insert(header::CACHE_CONTROL, read::cache_value(&self.app, Answer::LongPollTimeout, head));
        response
    }

    /// What became of a stream that went away under its reader: what a request that came now would be told. How its reader
    /// has heard of it says nothing: who waits at a shard joins anew, and finds what is there by then.
    async fn gone(&self, position: Offset) -> Problem {
        let error = match self.app.gateway.read(&self.permit.key, ReadOffset::At(position)).await {
            Err(error) => error,
            // What was waited for has gone, whatever is there instead.
            Ok(_) => Refusal::NotFound.into(),
        };
        self.permit.failed(&self.app, error).await
    }

    fn answer_cursor(&self) -> u64 {
        cursor::respond(self.app.ambient.now(), self.cursor, (self.app.ambient.random)())
    }
}

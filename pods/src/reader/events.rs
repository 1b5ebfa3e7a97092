//! Server-Sent Events, by a client of the protocol and by an `EventSource`.

use std::mem;

use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use tailwater_protocol::headers;
use tailwater_testkit::sse::{DurableEvent, DurableSse, Payload};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Kind, LONGEST_WAIT, Leg, Reader};
use crate::{
    message::Content,
    wire::{Ask, Link},
};

impl Reader {
    /// One response of events.
    pub(super) async fn events(&mut self) -> Leg {
        let (enough, mut carried) = (self.enough(), self.place.told().is_some());
        let started = Link::to(self.front()).start(&self.ask_for_events(), self.reading.silence).await;
        let Ok(response) = started else { return self.back() };
        let status = response.status().as_u16();
        match status {
            200 if is_event_stream(response.headers()) => {}
            200 => return Leg::Wrong("200, and no events".to_owned()),
            // What ends an `EventSource` for good: it has had everything (HTML, section 9.2).
            204 if carried && self.reading.kind == Kind::EventSource => return Leg::Finished,
            _ => return self.refused(status, response.headers()),
        }
        let (mut sse, mut body) = (self.parser(), response.into_body());
        loop {
            let frame = tokio::select! {
                frame = timeout(self.reading.silence, body.frame()) => frame,
                () = until(enough) => return self.back(),
            };
            let Ok(Some(Ok(frame))) = frame else { return self.back_as_told(&sse) };
            let Ok(bytes) = frame.into_data() else { continue };
            sse.push(&bytes);
            while let Some(event) = sse.pop() {
                // Not before: a response may only say when to come back.
                self.answered(mem::take(&mut carried));
                let taken = match event {
                    Ok(event) => self.take_event(event),
                    Err(violation) => Err(Leg::Wrong(violation.to_string())),
                };
                if let Err(leg) = taken {
                    return leg;
                }
            }
        }
    }

    fn ask_for_events(&self) -> Ask {
        let stream = &self.reading.stream;
        if self.reading.kind == Kind::EventSource {
            let target = format!("/v1/stream/{stream}?offset={}&live=sse", self.place.first());
            let ask = Ask::get(target).with("accept", "text/event-stream").with("cache-control", "no-cache");
            return match self.place.told() {
                Some(offset) => ask.with(headers::LAST_EVENT_ID, offset),
                None => ask,
            };
        }
        let cursor = self.place.cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        Ask::get(format!("/v1/stream/{stream}?offset={}&live=sse{cursor}", self.place.offset()))
    }

    fn parser(&self) -> DurableSse {
        let payload = match self.reading.content {
            Content::Text => Payload::Text,
            Content::Json => Payload::Json,
        };
        let sse = DurableSse::new(payload).from_offset(self.place.offset());
        match self.place.cursor.filter(|_| self.reading.kind == Kind::Events) {
            Some(cursor) => sse.from_cursor(cursor),
            None => sse,
        }
    }

    fn take_event(&mut self, event: DurableEvent) -> Result<(), Leg> {
        match event {
            DurableEvent::Data(bytes) => self.take(&bytes),
            DurableEvent::Control(control) => {
                self.commit(&control.next)?;
                self.place.cursor = control.cursor.or(self.place.cursor);
                if control.closed { Err(Leg::Finished) } else { Ok(()) }
            }
            end @ (DurableEvent::Reset { .. } | DurableEvent::Gone | DurableEvent::Unauthorized { .. }) => {
                Err(Leg::Wrong(format!("{end:?}")))
            }
        }
    }

    /// Comes back when the response has said to.
    fn back_as_told(&mut self, sse: &DurableSse) -> Leg {
        match sse.reconnection_time() {
            Some(wait) => Leg::Over(wait.min(LONGEST_WAIT)),
            None => self.back(),
        }
    }
}

fn is_event_stream(fields: &HeaderMap) -> bool {
    fields.get(header::CONTENT_TYPE).is_some_and(|value| value == "text/event-stream")
}

/// That moment, or never.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

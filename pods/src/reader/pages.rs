//! Long-polls, and catch-up.

use std::{mem, time::Duration};

use tailwater_protocol::headers;
use tokio::time::Instant;

use super::{Leg, Reader};
use crate::{
    plan::between,
    wire::{Answer, Ask, Link},
};

/// Between these somebody who only reads what is there comes again.
const CATCH_UP_AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));

impl Reader {
    /// Long-polls on one connection.
    pub(super) async fn polls(&mut self) -> Leg {
        let (enough, mut link) = (self.enough(), Link::to(self.front()));
        let mut carried = self.place.told().is_some();
        loop {
            if enough.is_some_and(|enough| Instant::now() > enough) {
                return self.back();
            }
            let (stream, offset) = (&self.reading.stream, self.place.offset());
            let cursor = self.place.cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let ask = Ask::get(format!("/v1/stream/{stream}?offset={offset}&live=long-poll{cursor}"));
            let Ok(answer) = link.exchange(&ask, self.reading.silence).await else { return self.back() };
            if !matches!(answer.status, 200 | 204) {
                return self.refused(answer.status, &answer.headers);
            }
            self.answered(mem::take(&mut carried));
            self.place.cursor = answer.header(headers::STREAM_CURSOR).and_then(|cursor| cursor.parse().ok());
            if let Err(leg) = self.take_page(&answer) {
                return leg;
            }
        }
    }

    /// Pages up to the tail.
    pub(super) async fn pages(&mut self) -> Leg {
        let mut link = Link::to(self.front());
        let mut carried = self.place.told().is_some();
        loop {
            let ask = Ask::get(format!("/v1/stream/{}?offset={}", self.reading.stream, self.place.offset()));
            let Ok(answer) = link.exchange(&ask, self.reading.silence).await else { return self.back() };
            if answer.status != 200 {
                return self.refused(answer.status, &answer.headers);
            }
            self.answered(mem::take(&mut carried));
            if let Err(leg) = self.take_page(&answer) {
                return leg;
            }
            if answer.is_up_to_date() {
                return Leg::Over(between(&mut self.rng, CATCH_UP_AGAIN.0, CATCH_UP_AGAIN.1));
            }
        }
    }

    fn take_page(&mut self, answer: &Answer) -> Result<(), Leg> {
        if !answer.body.is_empty() {
            self.take(&answer.body)?;
        }
        let Some(next) = answer.next() else { return Err(Leg::Wrong("an answer without an offset".to_owned())) };
        self.commit(next)?;
        if answer.is_closed() { Err(Leg::Finished) } else { Ok(()) }
    }
}

//! A reader of Server-Sent Events: the events of one response, each checked against what a client may rely on.

use std::collections::VecDeque;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tailwater_testkit::sse::{Control, DurableEvent, DurableSse, Payload};
use tokio::time::timeout;

use crate::fixture::PATIENCE;

/// One response of Server-Sent Events. Dropping it cuts the connection.
pub(crate) struct Follow {
    body: Incoming,
    pub(crate) headers: HeaderMap,
    sse: DurableSse,
    ready: VecDeque<DurableEvent>,
    /// Every byte that came.
    pub(crate) raw: Vec<u8>,
    /// The data so far: bytes, or the elements of JSON arrays.
    pub(crate) data: Vec<u8>,
    payload: Payload,
}

impl Follow {
    pub(crate) fn new(
        headers: &HeaderMap,
        body: Incoming,
        payload: Payload,
        offset: &str,
        cursor: Option<u64>,
    ) -> Self {
        let value = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(value("content-type"), Some("text/event-stream"));
        assert_eq!(value("content-length"), None);
        assert!(value("cache-control").unwrap().contains("no-cache"));
        assert_eq!(value("x-accel-buffering"), Some("no"));
        assert_eq!(value("stream-sse-data-encoding"), (payload == Payload::Binary).then_some("base64"));
        let sse = DurableSse::new(payload).from_offset(offset);
        let sse = match cursor {
            Some(cursor) => sse.from_cursor(cursor),
            None => sse,
        };
        Self { body, headers: headers.clone(), sse, ready: VecDeque::new(), raw: Vec::new(), data: Vec::new(), payload }
    }

    /// The next event; `None` at the end of the response.
    pub(crate) async fn next(&mut self) -> Option<DurableEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("something comes in time");
            let Some(frame) = frame else {
                self.sse.finish().unwrap();
                return None;
            };
            self.take(&frame.expect("the connection holds").into_data().unwrap());
        }
    }

    fn take(&mut self, bytes: &Bytes) {
        self.raw.extend_from_slice(bytes);
        self.sse.push(bytes);
        while let Some(event) = self.sse.pop() {
            let event = event.unwrap_or_else(|broken| panic!("{broken}: {}", String::from_utf8_lossy(&self.raw)));
            if let DurableEvent::Data(data) = &event {
                self.keep(data);
            }
            self.ready.push_back(event);
        }
    }

    fn keep(&mut self, data: &Bytes) {
        if self.payload != Payload::Json {
            return self.data.extend_from_slice(data);
        }
        let elements = data.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")).unwrap();
        if !self.data.is_empty() && !elements.is_empty() {
            self.data.push(b',');
        }
        self.data.extend_from_slice(elements);
    }

    /// The next control event, past data.
    pub(crate) async fn control(&mut self) -> Control {
        loop {
            match self.next().await.expect("the response goes on") {
                DurableEvent::Control(control) => return control,
                DurableEvent::Data(_) => {}
                end @ (DurableEvent::Reset { .. } | DurableEvent::Gone | DurableEvent::Unauthorized { .. }) => {
                    panic!("{end:?} instead of a control event")
                }
            }
        }
    }

    /// Follows until a control event says that nothing more is there.
    pub(crate) async fn until_up_to_date(&mut self) -> Control {
        loop {
            let control = self.control().await;
            if control.up_to_date {
                return control;
            }
        }
    }

    /// Follows until the data so far end like this, and their control event has come.
    pub(crate) async fn until_data(&mut self, end: &str) -> Control {
        loop {
            let control = self.control().await;
            if self.data.ends_with(end.as_bytes()) {
                return control;
            }
        }
    }

    /// Follows until so many bytes of data have come.
    pub(crate) async fn until_bytes(&mut self, bytes: usize) -> Control {
        loop {
            let control = self.control().await;
            if self.data.len() >= bytes {
                return control;
            }
        }
    }

    /// Follows to the end of a closed stream, which ends the response.
    pub(crate) async fn until_closed(&mut self) -> Control {
        loop {
            let control = self.control().await;
            if control.closed {
                assert_eq!(self.next().await, None);
                return control;
            }
        }
    }

    /// Follows to the end of the response, whatever comes.
    pub(crate) async fn until_end(&mut self) -> Vec<DurableEvent> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.data).unwrap()
    }

    /// Where to read on.
    pub(crate) fn offset(&self) -> String {
        self.sse.offset().unwrap().to_owned()
    }

    /// What an `EventSource` would go on with.
    pub(crate) fn last_event_id(&self) -> String {
        self.sse.last_event_id().to_owned()
    }

    /// The newest `retry:`, in milliseconds.
    pub(crate) fn retry_ms(&self) -> Option<u128> {
        self.sse.reconnection_time().map(|retry| retry.as_millis())
    }
}

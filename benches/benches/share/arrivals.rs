//! One reader, and when its messages arrive. It is polled all the time, whether or not somebody waits for a message.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tailwater_testkit::sse::{DurableEvent, DurableSse, Payload};
use tailwater_upstream::{ReadSession, SessionEvent};
use tokio::{sync::mpsc, time::timeout};

/// How long a message may take. Never reached where all is well.
const PATIENCE: Duration = Duration::from_secs(10);

/// The messages of one reader, each with the moment at which the reader had it.
pub(crate) struct Arrivals(mpsc::UnboundedReceiver<anyhow::Result<(Instant, Bytes)>>);

type Arrived = mpsc::UnboundedSender<anyhow::Result<(Instant, Bytes)>>;

/// A response of Server-Sent Events.
struct Response {
    body: Incoming,
    sse: DurableSse,
}

impl Arrivals {
    /// Those of a read session at the store.
    pub(crate) fn of_session(session: ReadSession) -> Self {
        Self::of(|arrived| follow_session(session, arrived))
    }

    /// Those of a reader of the gateway. Returns once it has caught up.
    pub(crate) async fn of_response(body: Incoming) -> anyhow::Result<Self> {
        let mut response = Response { body, sse: DurableSse::new(Payload::Json) };
        while !response.sse.is_up_to_date() {
            let early = timeout(PATIENCE, response.messages()).await.context("the reader does not catch up")??;
            ensure!(early.is_empty(), "a message before the first one");
        }
        Ok(Self::of(|arrived| follow_response(response, arrived)))
    }

    /// Waits for the next message, which must be this one; when it arrived.
    pub(crate) async fn next(&mut self, message: &Bytes) -> anyhow::Result<Instant> {
        let next = timeout(PATIENCE, self.0.recv()).await.context("no message in time")?;
        let (at, arrived) = next.context("the reader has ended")??;
        ensure!(arrived == message, "another message than the one that was published: {arrived:?}");
        Ok(at)
    }

    fn of<F: Future<Output = ()> + Send + 'static>(reader: impl FnOnce(Arrived) -> F) -> Self {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        tokio::spawn(reader(arrived));
        Self(arrivals)
    }
}

async fn follow_session(mut session: ReadSession, arrived: Arrived) {
    while let Some(event) = session.next().await {
        let at = Instant::now();
        let sent = match event {
            Ok(SessionEvent::Records(records)) => {
                records.into_iter().try_for_each(|record| arrived.send(Ok((at, record.body))))
            }
            Ok(SessionEvent::CaughtUp(_)) => Ok(()),
            Ok(SessionEvent::Stalled) => arrived.send(Err(anyhow::anyhow!("the session has lost its connection"))),
            Err(error) => arrived.send(Err(error.into())),
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn follow_response(mut response: Response, arrived: Arrived) {
    loop {
        let messages = response.messages().await;
        let failed = messages.is_err();
        let sent = match messages {
            Ok(messages) => messages.into_iter().try_for_each(|message| arrived.send(Ok(message))),
            Err(error) => arrived.send(Err(error)),
        };
        if sent.is_err() || failed {
            return;
        }
    }
}

impl Response {
    /// The messages that the next bytes complete, and when these bytes came.
    async fn messages(&mut self) -> anyhow::Result<Vec<(Instant, Bytes)>> {
        let frame = self.body.frame().await.context("the response has ended")??;
        let at = Instant::now();
        let Ok(bytes) = frame.into_data() else { return Ok(Vec::new()) };
        self.sse.push(&bytes);
        let mut messages = Vec::new();
        while let Some(event) = self.sse.pop() {
            match event? {
                DurableEvent::Data(array) => {
                    let message = array.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
                    messages.push((at, array.slice_ref(message.context("no JSON array")?)));
                }
                DurableEvent::Control(_) => {}
                end @ (DurableEvent::Reset { .. } | DurableEvent::Gone | DurableEvent::Unauthorized { .. }) => {
                    bail!("the stream is not what it was: {end:?}")
                }
            }
        }
        Ok(messages)
    }
}

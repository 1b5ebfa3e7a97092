//! Read sessions that are polled all the time, and what came by them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tailwater_upstream::{ReadSession, SessionEvent};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use crate::drive::Messages;

/// How long a message may take. Never reached where all is well.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a reader has to tell.
enum News {
    /// The message of this number came, on the stream that it was appended to.
    Came(usize),
    /// What must not be.
    Wrong(String),
}

/// A reader of each stream. They do as little as can be, because their CPU is counted.
pub(crate) struct Readers {
    tasks: JoinSet<()>,
    news: mpsc::UnboundedReceiver<News>,
    expected: usize,
}

impl Readers {
    /// Follows all streams; none where there are no sessions.
    pub(crate) fn follow(sessions: Vec<ReadSession>, messages: &Arc<Messages>) -> Self {
        let (tell, news) = mpsc::unbounded_channel();
        let expected = if sessions.is_empty() { 0 } else { messages.len() };
        let mut tasks = JoinSet::new();
        for (stream, session) in sessions.into_iter().enumerate() {
            tasks.spawn(follow(stream, session, Arc::clone(messages), tell.clone()));
        }
        Self { tasks, news, expected }
    }

    /// Waits for what is still on its way, `appended` messages in all, ends the sessions, and says what was wrong.
    pub(crate) async fn end(mut self, appended: bool) -> Vec<String> {
        let mut came = vec![0_u32; self.expected];
        let mut wrong = Vec::new();
        let expected = if appended { self.expected } else { 0 };
        let mut left = expected;
        while left > 0 {
            match timeout(PATIENCE, self.news.recv()).await {
                Ok(Some(news)) => left -= usize::from(news.kept(&mut came, &mut wrong)),
                Ok(None) | Err(_) => break,
            }
        }
        self.tasks.shutdown().await;
        // What came beyond.
        while let Ok(news) = self.news.try_recv() {
            news.kept(&mut came, &mut wrong);
        }
        let wanted = u32::from(appended);
        let (absent, repeated) = came.iter().fold((0, 0), |(absent, repeated), times| {
            (absent + usize::from(*times < wanted), repeated + usize::from(*times > wanted))
        });
        if absent + repeated > 0 {
            wrong.push(format!("of {expected} records {absent} did not come back and {repeated} came more than once"));
        }
        wrong
    }
}

impl News {
    /// Writes it down; whether it is the first of a message.
    fn kept(self, came: &mut [u32], wrong: &mut Vec<String>) -> bool {
        match self {
            Self::Came(number) => {
                came[number] += 1;
                came[number] == 1
            }
            Self::Wrong(what) => {
                wrong.push(what);
                false
            }
        }
    }
}

async fn follow(stream: usize, mut session: ReadSession, messages: Arc<Messages>, tell: mpsc::UnboundedSender<News>) {
    let wrong = |what: &str| News::Wrong(format!("the read session of stream {stream} {what}"));
    let news =
        |body: &Bytes| messages.number_of(stream, body).map_or_else(|| wrong("had a foreign record"), News::Came);
    loop {
        let told = match session.next().await {
            Some(Ok(SessionEvent::Records(records))) => {
                records.iter().try_for_each(|record| tell.send(news(&record.body)))
            }
            Some(Ok(SessionEvent::CaughtUp(_))) => Ok(()),
            Some(Ok(SessionEvent::Stalled)) => tell.send(wrong("lost its connection")),
            Some(Err(error)) => tell.send(wrong(&format!("failed: {error}"))),
            None => {
                tell.send(wrong("has ended")).ok();
                return;
            }
        };
        if told.is_err() {
            return;
        }
    }
}

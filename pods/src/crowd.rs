//! All clients of a scenario: started, watched, and asked in the end for what they have seen.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    history::{ReaderHistory, StreamHistory, WriterHistory},
    message::Content,
    reader::{Progress, Reading, read},
    wire::{Ask, Link},
    writer::{Writing, write},
};

/// How long the creation of a stream may take.
const CREATION: Duration = Duration::from_secs(30);
/// How many streams are asked for at once.
pub const AT_ONCE: usize = 16;
/// How long writers may take to settle what they have begun.
const SETTLE: Duration = Duration::from_secs(120);
/// How long readers may take to notice that they are to give up.
const NOTICE: Duration = Duration::from_secs(30);

/// Clients, and the streams that they are for.
#[derive(Debug)]
pub struct Crowd {
    streams: Vec<(String, Content)>,
    writers: JoinSet<(usize, WriterHistory)>,
    readers: JoinSet<(usize, ReaderHistory)>,
    watched: Vec<Watched>,
    acked: Arc<AtomicU64>,
    stop: CancellationToken,
    give_up: CancellationToken,
}

/// A reader, and what can be seen of it.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The number of its stream.
    pub stream: usize,
    /// How far it is.
    pub progress: Arc<Progress>,
}

impl Crowd {
    /// Nobody yet; the streams are created.
    ///
    /// # Errors
    /// When one cannot be created.
    pub async fn at(front: SocketAddr, streams: Vec<(String, Content)>) -> anyhow::Result<Self> {
        stream::iter(&streams)
            .map(|(name, content)| create(front, name, *content))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(Self {
            streams,
            writers: JoinSet::new(),
            readers: JoinSet::new(),
            watched: Vec::new(),
            acked: Arc::default(),
            stop: CancellationToken::new(),
            give_up: CancellationToken::new(),
        })
    }

    /// The streams, by their numbers.
    #[must_use]
    pub fn streams(&self) -> &[(String, Content)] {
        &self.streams
    }

    /// Lets somebody write, from the next moment on; `stream` is filled in.
    pub fn write(&mut self, stream: usize, writing: impl FnOnce(&str, Content) -> Writing) {
        let (name, content) = &self.streams[stream];
        let writing = writing(name, *content);
        let (acked, stop) = (Arc::clone(&self.acked), self.stop.clone());
        self.writers.spawn(async move { (stream, write(writing, acked, stop).await) });
    }

    /// Lets somebody read.
    pub fn read(&mut self, stream: usize, reading: impl FnOnce(&str, Content) -> Reading) {
        let (name, content) = &self.streams[stream];
        let reading = reading(name, *content);
        let (progress, give_up) = (Arc::<Progress>::default(), self.give_up.clone());
        self.watched.push(Watched { stream, progress: Arc::clone(&progress) });
        self.readers.spawn(async move { (stream, read(reading, progress, give_up).await) });
    }

    /// How many messages were acknowledged so far.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// The readers.
    #[must_use]
    pub fn watched(&self) -> &[Watched] {
        &self.watched
    }

    /// How often all readers together went on from their offsets, and how often the one who did so least.
    #[must_use]
    pub fn resumes(&self) -> (usize, usize) {
        let of = || self.watched.iter().map(|reader| reader.progress.resumes());
        (of().sum(), of().min().unwrap_or_default())
    }

    /// Tells all writers to stop, and waits until they know of all that they have begun.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn stop_writing(&mut self) -> anyhow::Result<Vec<(usize, WriterHistory)>> {
        self.stop.cancel();
        timeout(SETTLE, collect(&mut self.writers)).await.context("writers do not stop")?
    }

    /// Waits until all readers have come to the end of their streams. Those who have not in time give up.
    ///
    /// # Errors
    /// When they do not even do that.
    pub async fn finish_reading(&mut self, within: Duration) -> anyhow::Result<Vec<(usize, ReaderHistory)>> {
        let mut finished = Vec::new();
        let all = timeout(within, async {
            while let Some(joined) = self.readers.join_next().await {
                finished.push(joined.context("a reader has panicked")?);
            }
            anyhow::Ok(())
        });
        if let Ok(joined) = all.await {
            joined?;
        }
        self.give_up.cancel();
        finished.extend(timeout(NOTICE, collect(&mut self.readers)).await.context("readers do not give up")??);
        Ok(finished)
    }

    /// The histories of all streams, whose ends are still to be told.
    #[must_use]
    pub fn histories(
        &self,
        writers: Vec<(usize, WriterHistory)>,
        readers: Vec<(usize, ReaderHistory)>,
    ) -> Vec<StreamHistory> {
        let empty = |(name, content): &(String, Content)| StreamHistory {
            name: name.clone(),
            content: *content,
            writers: Vec::new(),
            readers: Vec::new(),
            ends: Vec::new(),
        };
        let mut histories: Vec<StreamHistory> = self.streams.iter().map(empty).collect();
        for (stream, writer) in writers {
            histories[stream].writers.push(writer);
        }
        for (stream, reader) in readers {
            histories[stream].readers.push(reader);
        }
        histories
    }
}

async fn collect<T: 'static>(tasks: &mut JoinSet<T>) -> anyhow::Result<Vec<T>> {
    let mut done = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        done.push(joined.context("a client has panicked")?);
    }
    Ok(done)
}

async fn create(front: SocketAddr, name: &str, content: Content) -> anyhow::Result<()> {
    let ask = Ask::new(Method::PUT, format!("/v1/stream/{name}")).with("content-type", content.mime());
    let answer = Link::to(front).exchange(&ask, CREATION).await?;
    ensure!(answer.status == 201, "{name} was not created: {} {:?}", answer.status, answer.code());
    Ok(())
}

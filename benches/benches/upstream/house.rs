//! A store in a process of its own, and S2's client library, as the gateway uses it and as it is.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use prometheus::{Registry, TextEncoder};
use s2_sdk::{
    append_session::AppendSession,
    types::{AppendInput, AppendRecord, AppendRecordBatch},
};
use tailwater_benches::{direct::Direct, programs::Cores};
use tailwater_log::NewRecord;
use tailwater_s2::S2Upstream;
use tailwater_upstream::{Append, ReadSession, StreamKey, Upstream as _};
use tokio::process::Child;

use crate::drive::Writes;

const PROJECT: &str = "bench";
/// What is in a stream before it is followed.
const FIRST: &[u8] = b"{}";

/// A store with streams, and the way to it.
pub(crate) struct House {
    keys: Vec<StreamKey>,
    direct: Direct,
    upstream: S2Upstream,
    registry: Registry,
    store: Child,
}

/// The way that messages take to their streams.
pub(crate) enum Writers {
    /// None: they are not appended.
    Schedule,
    /// A request for each.
    Unary { upstream: S2Upstream, keys: Vec<StreamKey> },
    /// A session for each stream.
    Sessions(Vec<AppendSession>),
}

impl House {
    /// Starts a store and makes the streams, each with one record.
    pub(crate) async fn open(cores: Cores, streams: u32) -> anyhow::Result<Self> {
        let (store, addr) = cores.serve(&["store", "--memory", "--listen", "127.0.0.1:0"]).await?;
        let direct = Direct::at(&addr)?;
        let registry = Registry::new();
        let upstream = direct.upstream(&registry)?;
        let keys: Vec<_> = (0..streams).map(|n| StreamKey::new(PROJECT, &format!("upstream-{n}"))).collect();
        for key in &keys {
            let first = Append::new(vec![NewRecord::message(Bytes::from_static(FIRST))]);
            upstream.append(key, first).await.context("the stream is not made")?;
        }
        Ok(Self { keys, direct, upstream, registry, store })
    }

    pub(crate) fn writers(&self, writes: Writes) -> anyhow::Result<Writers> {
        Ok(match writes {
            Writes::Nobody | Writes::Schedule => Writers::Schedule,
            Writes::Unary => Writers::Unary { upstream: self.upstream.clone(), keys: self.keys.clone() },
            Writes::Sessions => {
                let streams = self.keys.iter().map(|key| &*key.stream);
                Writers::Sessions(self.direct.append_sessions(PROJECT, streams)?)
            }
        })
    }

    /// A read session on each stream, behind its first record.
    pub(crate) async fn read_sessions(&self) -> anyhow::Result<Vec<ReadSession>> {
        let mut sessions = Vec::new();
        for key in &self.keys {
            sessions.push(self.upstream.read_session(key, 1).await.context("a read session is not opened")?);
        }
        Ok(sessions)
    }

    /// How many read sessions are open, as `S2Upstream` counts them.
    pub(crate) fn open_read_sessions(&self) -> anyhow::Result<u32> {
        let metrics = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        let value = metrics.lines().find_map(|line| line.strip_prefix("tailwater_upstream_read_sessions "));
        value.context("read sessions are not counted")?.parse().context("the number of read sessions")
    }

    /// Ends the store. Its data is in memory, so there is nothing to be saved.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        ensure!(self.store.try_wait()?.is_none(), "the store ended by itself");
        Ok(self.store.kill().await?)
    }
}

impl Writers {
    /// Appends a message to a stream, and returns once it is acknowledged.
    pub(crate) async fn append(&self, stream: usize, message: Bytes) -> anyhow::Result<()> {
        match self {
            Self::Schedule => Ok(()),
            Self::Unary { upstream, keys } => {
                upstream.append(&keys[stream], Append::new(vec![NewRecord::message(message)])).await?;
                Ok(())
            }
            Self::Sessions(sessions) => {
                let batch = AppendRecordBatch::try_from_iter([AppendRecord::new(message)?])?;
                sessions[stream].submit(AppendInput::new(batch)).await?.await?;
                Ok(())
            }
        }
    }

    /// Ends the sessions, which have nothing left to append.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        let sessions = match self {
            Self::Schedule | Self::Unary { .. } => Vec::new(),
            Self::Sessions(sessions) => sessions,
        };
        for session in sessions {
            session.close().await?;
        }
        Ok(())
    }
}

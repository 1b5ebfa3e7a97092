//! The ways that a message can take to its stream.

use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use prometheus::Registry;
use s2_sdk::{
    append_session::AppendSession,
    types::{AppendInput, AppendRecord, AppendRecordBatch, FencingToken},
};
use serde_json::value::RawValue;
use tailwater_benches::{
    connection::{Claim, Connection},
    ledger::Stamp,
};
use tailwater_log::NewRecord;
use tailwater_s2::S2Upstream;
use tailwater_upstream::{Append, ReadFrom, StreamKey, Upstream as _};
use tokio::sync::Mutex;

use crate::house::{Doors, PROJECT};

/// As many records as a unary read may have.
const PAGE: usize = 1_000;
/// The token of a stream that was never fenced.
const UNFENCED: &str = "";

/// A way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The library, without a condition.
    Unary,
    /// The library, on condition of the position; one writer of a stream at a time.
    Turns,
    /// The library's append sessions, on condition of the position.
    Session,
    /// The gateway.
    Gateway,
    /// The gateway, each writer with a producer of its own.
    Producers,
}

/// A way with its streams, shared by all writers.
pub(crate) struct Road {
    keys: Vec<StreamKey>,
    doors: Doors,
    upstream: S2Upstream,
    lanes: Lanes,
}

/// What writers of the same stream share.
enum Lanes {
    /// Nothing.
    None,
    /// Whose turn it is: the position is known to who has it.
    Turns(Vec<Mutex<u64>>),
    /// A session, and the position that what was submitted leaves.
    Sessions(Vec<(AppendSession, Mutex<u64>)>),
}

/// One writer on a road.
pub(crate) struct Writer {
    road: Arc<Road>,
    way: Way,
    /// To the gateway, where it goes there, and who it is to it.
    connection: Option<Connection>,
    producer: String,
}

impl Way {
    pub(crate) const ALL: [Self; 5] = [Self::Unary, Self::Turns, Self::Session, Self::Gateway, Self::Producers];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Turns => "unary, in turns",
            Self::Session => "session",
            Self::Gateway => "gateway",
            Self::Producers => "gateway, producers",
        }
    }

    /// Whether it goes past the gateway.
    pub(crate) fn is_direct(self) -> bool {
        match self {
            Self::Unary | Self::Turns | Self::Session => true,
            Self::Gateway | Self::Producers => false,
        }
    }

    /// What the names of its streams begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Turns => "turns",
            Self::Session => "session",
            Self::Gateway => "gateway",
            Self::Producers => "producers",
        }
    }
}

impl Road {
    /// Makes the streams.
    pub(crate) async fn open(doors: Doors, way: Way, streams: u32) -> anyhow::Result<Self> {
        let name = |n| StreamKey::new(PROJECT, &format!("{}-{n}", way.prefix()));
        let keys: Vec<_> = (0..streams).map(name).collect();
        let starts = || keys.iter().map(|_| Mutex::new(0));
        let lanes = match way {
            Way::Unary => Lanes::None,
            Way::Turns => Lanes::Turns(starts().collect()),
            Way::Session => {
                let sessions = doors.direct.append_sessions(PROJECT, keys.iter().map(|key| &*key.stream))?;
                Lanes::Sessions(sessions.into_iter().zip(starts()).collect())
            }
            Way::Gateway | Way::Producers => {
                let mut connection = Connection::open(&doors.gateway, PROJECT).await?;
                for key in &keys {
                    connection.create(&key.stream).await?;
                }
                Lanes::None
            }
        };
        let upstream = doors.direct.upstream(&Registry::new())?;
        Ok(Self { keys, doors, upstream, lanes })
    }

    /// All messages that a stream holds, as its readers see them.
    pub(crate) async fn messages(&self, way: Way, stream: usize) -> anyhow::Result<Vec<Bytes>> {
        let key = &self.keys[stream];
        if way.is_direct() { self.records(key).await } else { self.values(&key.stream).await }
    }

    /// Ends the sessions, which have nothing left to append.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        match self.lanes {
            Lanes::None | Lanes::Turns(_) => {}
            Lanes::Sessions(sessions) => {
                for (session, _) in sessions {
                    session.close().await?;
                }
            }
        }
        Ok(())
    }

    async fn records(&self, key: &StreamKey) -> anyhow::Result<Vec<Bytes>> {
        let mut bodies = Vec::new();
        loop {
            let page = self.upstream.read(key, ReadFrom::Seq(bodies.len() as u64), PAGE).await?;
            if page.records.is_empty() {
                return Ok(bodies);
            }
            bodies.extend(page.records.into_iter().map(|record| record.body));
        }
    }

    async fn values(&self, stream: &str) -> anyhow::Result<Vec<Bytes>> {
        let pages = Connection::open(&self.doors.gateway, PROJECT).await?.read_all(stream).await?;
        let mut values = Vec::new();
        for page in pages {
            let array: Vec<&RawValue> = serde_json::from_slice(&page).context("a page is no JSON array")?;
            values.extend(array.into_iter().map(|value| page.slice_ref(value.get().as_bytes())));
        }
        Ok(values)
    }
}

impl Writer {
    pub(crate) async fn open(road: Arc<Road>, way: Way, number: usize) -> anyhow::Result<Self> {
        let connection =
            if way.is_direct() { None } else { Some(Connection::open(&road.doors.gateway, PROJECT).await?) };
        Ok(Self { road, way, connection, producer: format!("writer-{number}") })
    }

    /// Appends a message to its stream, and returns once it is acknowledged.
    pub(crate) async fn append(&mut self, stamp: Stamp) -> anyhow::Result<()> {
        let streams = self.road.keys.len();
        let (stream, message) = (stamp.stream(streams), stamp.message());
        let Some(connection) = &mut self.connection else { return self.road.append(stream, message).await };
        let name = &self.road.keys[stream].stream;
        match self.way {
            Way::Producers => {
                let seq = stamp.earlier_there(streams) as u64;
                connection.append_claimed(name, message, Claim { id: &self.producer, seq }).await
            }
            Way::Unary | Way::Turns | Way::Session | Way::Gateway => connection.append(name, message).await,
        }
    }
}

impl Road {
    /// By the library.
    async fn append(&self, stream: usize, message: Bytes) -> anyhow::Result<()> {
        match &self.lanes {
            Lanes::None => self.unary(stream, Append::new(vec![NewRecord::message(message)])).await.map(drop),
            Lanes::Turns(turns) => {
                // Held until the ack, for that is the turn.
                let mut next = turns[stream].lock().await;
                let records = vec![NewRecord::message(message)];
                let append = Append { records, match_seq: Some(*next), token: Some(UNFENCED.to_owned()) };
                *next = self.unary(stream, append).await?;
                Ok(())
            }
            Lanes::Sessions(sessions) => {
                let (session, next) = &sessions[stream];
                let batch = AppendRecordBatch::try_from_iter([AppendRecord::new(message)?])?;
                let token: FencingToken = UNFENCED.parse()?;
                // Held until it is submitted: what was submitted before lands before.
                let ticket = {
                    let mut next = next.lock().await;
                    let input = AppendInput::new(batch).with_match_seq_num(*next).with_fencing_token(token);
                    *next += 1;
                    session.submit(input).await?
                };
                ticket.await?;
                Ok(())
            }
        }
    }

    /// The position that the append leaves.
    async fn unary(&self, stream: usize, append: Append) -> anyhow::Result<u64> {
        Ok(self.upstream.append(&self.keys[stream], append).await?.end.seq)
    }
}

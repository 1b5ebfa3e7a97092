//! The sweep: streams that have to be looked after although nobody asks for them again.
//!
//! A stream with a lifetime ends when someone asks for it after its time. What nobody asks for is found through an index:
//! one log per hour and shard, in a project of the gateway's own, that lists who may have ended by then. An entry is
//! written before the `open` of its stream, so a crash in between leaves an entry without a stream, which says nothing.
//! When an hour is over, one pod takes the log's lease by compare-and-swap, looks at each stream, lists again what still
//! lives, and trims the log, which then reaps itself. Soft-deleted sources are listed too: a reference that a crash has
//! left behind is found out here.
//!
//! The index decides nothing: a stream's end is decided by its own log. So an entry in the wrong hour costs a look.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tailwater_log::{Entry, Kind, NewRecord, Presence, Reference};
use tailwater_upstream::{Append, StreamKey};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info};

use crate::{
    actor::{LookAt, Message, stream_key, stream_name},
    batch::LogRecord,
    gateway::Gateway,
    logread::{LogReader, in_append_time},
    ops::OpError,
};

/// The project that holds what gateways need for themselves. No client can name it: ids do not start with `_`.
const OWN_PROJECT: &str = "_tailwater";
/// Before the hour and the shard.
const PREFIX: &str = "expiry/";
/// How many logs an hour's entries are spread over, so that pods can share a sweep.
const SHARDS: u64 = 8;
/// The length of what one log covers, in milliseconds.
const HOUR_MS: u64 = 60 * 60 * 1000;
/// How often to look for hours that are over.
const EVERY: Duration = Duration::from_secs(60);
/// For how long the pod that took a log's lease is left to it, in milliseconds of the store's time.
const LEASE_MS: u64 = 5 * 60 * 1000;
/// How many logs are listed at a time.
const LOGS_A_PAGE: usize = 100;
/// How much longer than asked for a soft-deleted source is left alone before its references are looked at again.
const SOURCE_AGAIN_MS: u64 = HOUR_MS;

/// Who has to be looked after, and when.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    /// The stream.
    pub(crate) key: StreamKey,
    /// Its incarnation; another one is not meant.
    pub(crate) incarnation: u64,
    /// When, in milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
}

impl Gateway {
    /// Writes an index entry.
    pub(crate) async fn list(&self, listing: &Listing) -> Result<(), OpError> {
        let log = StreamKey::new(OWN_PROJECT, &log_name(listing));
        let reference = Reference { incarnation: listing.incarnation, fork: stream_name(&listing.key) };
        let entry = Entry { stamp: None, kind: Kind::Ref(reference) }.encode(Bytes::new());
        let ack = in_append_time(self.upstream().append(&log, Append::new(vec![entry]))).await?;
        self.clock().learn(ack.end.timestamp);
        Ok(())
    }

    /// The present for the index: the store's, or this machine's until the store has told its own.
    pub(crate) fn about_now_ms(&self) -> u64 {
        self.clock().present_ms().unwrap_or_else(|| self.config().machine_clock.now_ms())
    }

    /// Sweeps until the gateway shuts down.
    pub(crate) async fn sweep_for_ever(self) {
        let shutdown = self.shutdown().clone();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                swept = self.sweep() => match swept {
                    Ok(0) => {}
                    Ok(looked_at) => info!(looked_at, "looked after streams that nobody asked for"),
                    Err(error) => debug!(%error, "the sweep was cut short"),
                },
            }
        }
    }

    /// Sweeps all hours that are over; how many streams were looked at.
    pub(crate) async fn sweep(&self) -> Result<usize, OpError> {
        let now = self.about_now_ms();
        let (mut looked_at, mut after) = (0, String::new());
        loop {
            // Logs that were swept are there until the store has reaped them, which takes a day: they must not stand in the
            // way of those that were not.
            let names = self.upstream().list(OWN_PROJECT, PREFIX, &after, LOGS_A_PAGE).await?;
            let Some(last) = names.last().cloned() else { return Ok(looked_at) };
            for name in names {
                let Some(hour) = hour_of(&name) else { continue };
                if !is_over(hour, now) {
                    // Names sort by their hour: the others are later still.
                    return Ok(looked_at);
                }
                looked_at += self.sweep_log(&name, hour).await?;
            }
            after = last;
        }
    }

    async fn sweep_log(&self, name: &str, hour: u64) -> Result<usize, OpError> {
        let key = StreamKey::new(OWN_PROJECT, name);
        let reader = LogReader::new(Arc::clone(self.upstream()), key.clone());
        let Some(tail) = reader.tail().await? else { return Ok(0) };
        let records = reader.read_all(0, tail.seq).await?;
        let entry = |read: &LogRecord| match Entry::decode(&read.record) {
            Ok(Entry { kind: Kind::Ref(listed), .. }) => Some(listed),
            Ok(_) | Err(_) => None,
        };
        // A sweep that was cut short has listed some again, and its successor lists them once more.
        let entries: BTreeSet<Reference> = records.iter().filter_map(entry).collect();
        // What sweeps leave behind, a lease and the trim itself, is nothing to be swept.
        if entries.is_empty() || self.is_leased(&records) || !self.take_lease(&key, tail.seq).await? {
            return Ok(0);
        }
        // The lease's ack has told the store's time. Where the machine's was ahead of it, streams of this hour may be listed and
        // not opened yet: their entries must not be taken for those of streams that never were.
        if !is_over(hour, self.about_now_ms()) {
            return Ok(0);
        }
        let looked_at = entries.len();
        for listed in &entries {
            match self.look_after(listed).await {
                Ok(()) => {}
                // The store is away, or this pod ends: the lease runs out, and the log is swept again.
                Err(error @ (OpError::Unavailable { .. } | OpError::OutcomeUnknown | OpError::Draining)) => {
                    return Err(error);
                }
                // One that cannot be looked at now does not keep the others from being looked after.
                Err(error) => {
                    debug!(stream = %stream_key(&listed.fork), %error, "a stream could not be looked after");
                    let at_ms = self.about_now_ms() + HOUR_MS;
                    self.list(&Listing { key: stream_key(&listed.fork), incarnation: listed.incarnation, at_ms })
                        .await?;
                }
            }
        }
        // Behind the lease nothing was read; an entry that came late keeps its log alive for the next sweep.
        let trim = Append { records: vec![NewRecord::trim(tail.seq + 1)], match_seq: None, token: None };
        in_append_time(self.upstream().append(&key, trim)).await?;
        Ok(looked_at)
    }

    /// Whether another pod has taken this log on a short while ago. The lease is for economy: two pods that sweep the
    /// same log do the same things.
    fn is_leased(&self, records: &[LogRecord]) -> bool {
        let is_lease = |read: &&LogRecord| Entry::decode(&read.record).is_ok_and(|entry| entry.kind == Kind::Touch);
        let newest = records.iter().rev().find(is_lease);
        newest.is_some_and(|lease| lease.record.timestamp + LEASE_MS > self.about_now_ms())
    }

    async fn take_lease(&self, key: &StreamKey, tail: u64) -> Result<bool, OpError> {
        let lease = Entry { stamp: None, kind: Kind::Touch }.encode(Bytes::new());
        let append = Append { records: vec![lease], match_seq: Some(tail), token: None };
        match in_append_time(self.upstream().append(key, append)).await {
            Ok(ack) => {
                self.clock().learn(ack.end.timestamp);
                Ok(true)
            }
            Err(tailwater_upstream::AppendError::SeqMismatch { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks at a stream, which ends it where its time has come; what lives on is listed again.
    async fn look_after(&self, listed: &Reference) -> Result<(), OpError> {
        let key = stream_key(&listed.fork);
        let look = self.ask_owed(&key, |reply| Message::Look { at: LookAt::Head, reply }).await?;
        let Some(life) = look.view.incarnation().filter(|life| life.open.incarnation == listed.incarnation) else {
            return Ok(());
        };
        let at_ms = match look.view.presence() {
            Presence::Absent => return Ok(()),
            Presence::Here => life.expires_at_ms(),
            Presence::SoftDeleted => {
                self.release_orphans(&key).await?;
                Some(self.about_now_ms() + SOURCE_AGAIN_MS)
            }
        };
        let Some(at_ms) = at_ms else { return Ok(()) };
        self.list(&Listing { key, incarnation: listed.incarnation, at_ms }).await
    }

    /// Lets go of the references of forks that never came to be, or are no more.
    async fn release_orphans(&self, source: &StreamKey) -> Result<(), OpError> {
        for reference in self.ask_owed(source, |reply| Message::References { reply }).await? {
            let fork = stream_key(&reference.fork);
            let look = self.ask_owed(&fork, |reply| Message::Look { at: LookAt::Head, reply }).await?;
            let lives = look.view.presence() != Presence::Absent
                && look.view.incarnation().is_some_and(|life| life.open.incarnation == reference.incarnation);
            if !lives {
                self.ask_owed(source, |reply| Message::Release { reference: reference.clone(), reply }).await?;
            }
        }
        Ok(())
    }
}

/// `expiry/<hour since the Unix epoch, 8 digits>/<shard>`.
fn log_name(listing: &Listing) -> String {
    let hour = listing.at_ms / HOUR_MS;
    let shard = BuildHasherDefault::<DefaultHasher>::default().hash_one(&listing.key) % SHARDS;
    format!("{PREFIX}{hour:08}/{shard}")
}

fn is_over(hour: u64, now_ms: u64) -> bool {
    (hour + 1) * HOUR_MS <= now_ms
}

fn hour_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_sort_by_their_hour() {
        let name = |at_ms| log_name(&Listing { key: StreamKey::new("p", "s"), incarnation: 1, at_ms });
        let (early, late) = (name(9 * HOUR_MS), name(10 * HOUR_MS + 1));
        assert!(early < late);
        assert_eq!((hour_of(&early), hour_of(&late)), (Some(9), Some(10)));
        assert_eq!(hour_of("expiry/x/1"), None);
    }
}

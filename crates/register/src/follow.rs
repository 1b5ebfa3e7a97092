//! The one read session of a pod: opened, read, and opened again, for as long as the process lives.
//!
//! A session goes on where the one before has ended. Where that cannot be, because the log was trimmed meanwhile, or a record
//! could not be read, the log is read again from its beginning, and what was known stays in force until it is read to its end.

use std::time::Duration;

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, OptionFuture},
};
use tailwater_auth::{RegisterError, register::Register};
use tailwater_log::NewRecord;
use tailwater_upstream::{AppendAck, AppendError, Cause, ReadError, ReadSession, SessionEvent};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    RegisterLog,
    fold::Fold,
    view::{Trouble, View},
};

/// After how many records a checkpoint is appended, and what stands before it trimmed.
pub(crate) const CHECKPOINT_EVERY: u64 = 256;
/// How long a session may take to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before a session that has ended is opened again: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often to look whether there is a log at all. Until there is, nobody has written anything.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often to look whether what could not be read can be.
const MEND_EVERY: Duration = Duration::from_secs(30);

/// Why a session is over.
#[derive(Debug)]
enum End {
    /// There is no log.
    Missing,
    /// The store ended it, or did not open it.
    Failed(ReadError),
    /// What it brought cannot be folded.
    Unfoldable(RegisterError),
    /// The log ends before what is known of it.
    Shortened,
}

/// A checkpoint that is being appended.
type Compaction = OptionFuture<BoxFuture<'static, Result<AppendAck, AppendError>>>;

impl RegisterLog {
    /// Follows the log for ever.
    pub async fn follow(self) {
        let mut fold = Fold::default();
        let mut wait = AGAIN.0;
        loop {
            let known = fold.next();
            let end = self.session(&mut fold).await;
            if fold.next() > known {
                wait = AGAIN.0;
            }
            match end {
                End::Missing => {
                    fold = Fold::default();
                    tokio::select! {
                        () = sleep(LOOK_EVERY) => {}
                        () = self.0.created.notified() => {}
                    }
                    continue;
                }
                End::Failed(error) => {
                    tracing::debug!(%error, "the register is not followed for a moment");
                    self.suffer(Trouble::Unfollowed(Instant::now()));
                }
                End::Unfoldable(error) => {
                    fold = Fold::default();
                    self.0.metrics.refolds.inc();
                    match error {
                        // It was trimmed meanwhile, which the checkpoint makes good.
                        RegisterError::Gap { .. } => self.suffer(Trouble::Unfollowed(Instant::now())),
                        RegisterError::Record { .. } | RegisterError::Start { .. } => {
                            self.suffer(Trouble::Unreadable(error));
                            wait = MEND_EVERY;
                        }
                    }
                }
                End::Shortened => {
                    fold = Fold::default();
                    self.suffer(Trouble::Shortened);
                    wait = MEND_EVERY;
                }
            }
            sleep(wait).await;
            self.0.upstream.reachable(&self.0.key).await;
            wait = if wait == MEND_EVERY { AGAIN.0 } else { AGAIN.1.min(2 * wait) };
        }
    }

    /// Reads on from where the fold stands, until the session ends.
    async fn session(&self, fold: &mut Fold) -> End {
        let mut session = match self.open(fold).await {
            Ok(session) => session,
            Err(end) => return end,
        };
        let mut compaction = Compaction::default();
        let mut tried_at = None;
        loop {
            let is_due = fold.since_checkpoint() >= CHECKPOINT_EVERY && tried_at != Some(fold.next());
            if is_due && self.is_current() {
                tried_at = Some(fold.next());
                compaction = Some(self.compact(fold)).into();
            }
            tokio::select! {
                // The session first: it has to be polled all the time.
                biased;
                event = session.next() => {
                    let event = event.unwrap_or_else(|| Err(ReadError::Unavailable { cause: Cause::from("it has ended") }));
                    let done = match event {
                        Ok(event) => self.on(event, fold),
                        Err(ReadError::NotFound) => Err(self.missing()),
                        Err(error) => Err(End::Failed(error)),
                    };
                    if let Err(end) = done {
                        return end;
                    }
                }
                Some(appended) = &mut compaction => {
                    compaction = Compaction::default();
                    self.compacted(appended);
                }
            }
        }
    }

    async fn open(&self, fold: &Fold) -> Result<ReadSession, End> {
        let from = fold.next();
        let opened = timeout(OPEN_TIMEOUT, self.0.upstream.read_session(&self.0.key, from)).await;
        match opened.unwrap_or_else(|late| Err(ReadError::Unavailable { cause: Cause::from(late) })) {
            Ok(session) => {
                self.0.metrics.sessions.inc();
                Ok(session)
            }
            Err(ReadError::NotFound) => Err(self.missing()),
            Err(error @ ReadError::Refused { .. }) if from > 0 => {
                let tail = timeout(OPEN_TIMEOUT, self.0.upstream.check_tail(&self.0.key)).await;
                match tail {
                    Ok(Ok(tail)) if tail.seq < from => Err(End::Shortened),
                    Ok(_) | Err(_) => Err(End::Failed(error)),
                }
            }
            Err(error @ (ReadError::Refused { .. } | ReadError::Busy { .. } | ReadError::Unavailable { .. })) => {
                Err(End::Failed(error))
            }
        }
    }

    /// The store has no such log: nobody has written anything, or what was written is gone.
    fn missing(&self) -> End {
        if self.known() > 0 {
            return End::Shortened;
        }
        self.show(View::of(Register::default()));
        End::Missing
    }

    fn on(&self, event: SessionEvent, fold: &mut Fold) -> Result<(), End> {
        match event {
            SessionEvent::Records(records) => {
                let mut learned = false;
                let taken = records.iter().try_for_each(|record| {
                    learned |= fold.take(record)?;
                    Ok(())
                });
                // What is known in part is not shown, unless more was known before and this is more still. What stands before
                // a record that cannot be folded counts like what came with others.
                if learned && self.with(View::is_read) && fold.next() > self.known() {
                    self.learn(fold);
                }
                taken.map_err(End::Unfoldable)
            }
            SessionEvent::CaughtUp(tail) => {
                fold.finish(tail.seq).map_err(End::Unfoldable)?;
                if fold.next() < self.known() {
                    return Err(End::Shortened);
                }
                self.show(View::of(fold.register().clone()));
                Ok(())
            }
            SessionEvent::Stalled => {
                self.suffer(Trouble::Unfollowed(Instant::now()));
                Ok(())
            }
        }
    }

    fn compact(&self, fold: &Fold) -> BoxFuture<'static, Result<AppendAck, AppendError>> {
        let position = fold.next();
        let checkpoint = NewRecord::message(fold.register().checkpoint().encode().into());
        let log = self.clone();
        // Together or not at all: without the checkpoint, nothing may go.
        async move { log.put(vec![checkpoint, NewRecord::trim(position)], position).await }.boxed()
    }

    fn compacted(&self, appended: Result<AppendAck, AppendError>) {
        match appended {
            Ok(_) => self.0.metrics.checkpoints.inc(),
            // Another pod was faster with this, or with a record: there is a next time.
            Err(AppendError::SeqMismatch { .. }) => {}
            Err(error) => tracing::debug!(%error, "the register got no checkpoint"),
        }
    }

    fn known(&self) -> u64 {
        self.with(|view| view.register().next())
    }

    fn is_current(&self) -> bool {
        self.with(|view| view.is_read() && view.trouble().is_none())
    }

    /// Shows more than before, with what is wrong as it was.
    fn learn(&self, fold: &Fold) {
        let trouble = self.with(View::trouble);
        self.replace(View::of(fold.register().clone()).amid(trouble));
    }

    /// Shows all there is.
    fn show(&self, view: View) {
        let is_new = self.with(|known| known.trouble().is_some() || !known.is_read());
        if is_new {
            tracing::info!(records = view.register().next(), "the register is known");
        }
        if is_new || view.register().next() > self.known() {
            self.replace(view);
        }
    }

    /// Says what is wrong, once.
    fn suffer(&self, trouble: Trouble) {
        let before = self.with(View::trouble);
        match trouble {
            Trouble::Unfollowed(_) => {}
            trouble if before == Some(trouble) => return,
            Trouble::Unreadable(error) => {
                tracing::error!(%error, "the register cannot be read on; what was known of it counts");
            }
            Trouble::Shortened => {
                tracing::error!("the register has lost records; what was known of it counts until a restart");
            }
        }
        // What is worse stays said while nobody knows better.
        if matches!((before, trouble), (Some(Trouble::Unreadable(_) | Trouble::Shortened), Trouble::Unfollowed(_))) {
            return;
        }
        let view = self.with(|view| view.amid(Some(trouble)));
        self.replace(view);
    }

    fn replace(&self, view: View) {
        self.0.metrics.reached(view.register().next());
        self.0.metrics.stands(view.standing());
        self.0.view.send_replace(view);
    }
}

//! What a live answer stands on: the token that it was asked for with, or a project that shows its stream to everybody. It
//! ends with the token, and when that is revoked, and says so.
//!
//! A request is judged when it comes. What lasts is judged again when its token expires, and when projects, keys or
//! revocations have changed, but not for each message. However often they change, nobody looks again sooner than after
//! [`LOOK_AGAIN`], so that is how long a message may still go out behind a change.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use tailwater_auth::{Act, Grant, Refusal, Ruling, TicketError, TicketHeld, TokenError, decide};
use tailwater_protocol::{ProjectId, sse::Lapse};
use tokio::time::{Instant, sleep_until};

use crate::{app::Ambient, guard::Guard};

/// How long after one look at what has changed the next one is.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What an answer stands on.
#[derive(Debug)]
pub(crate) struct Standing {
    guard: Guard,
    who: Who,
    stream: Arc<str>,
    /// Whether the asker has a right of his own to read the stream, whoever may read it besides.
    has_right: bool,
    /// When the token expires; `None` where that is never.
    ends_at: Option<Instant>,
    ambient: Ambient,
}

/// Who has asked.
#[derive(Debug)]
pub(crate) enum Who {
    /// Somebody with a token.
    Bearer {
        /// What it lets him do.
        grant: Arc<Grant>,
        /// What he has brought in its place.
        ticket: Option<TicketHeld>,
    },
    /// Anybody, in this project.
    Anybody(ProjectId),
}

/// A wait for the end of what an answer stands on, and for what a request that comes then is refused with. Made once for an
/// answer, so that waiting costs nothing anew for each message.
pub(crate) type Vigil = Pin<Box<dyn Future<Output = Refusal> + Send>>;

impl Standing {
    pub(crate) fn new(guard: Guard, who: Who, stream: Arc<str>, has_right: bool, ambient: Ambient) -> Self {
        let ends_at = match &who {
            Who::Bearer { grant, ticket } => {
                // The first moment that is refused to a new request. Issuers' clocks may be off, not a ticket's hour.
                let end = grant.expires_at.saturating_add(guard.skew());
                let end_ms = ticket.map_or(end, |ticket| end.min(ticket.hour_ends_at)).saturating_mul(1000);
                Instant::now().checked_add(Duration::from_millis(end_ms.saturating_sub(ambient.now())))
            }
            Who::Anybody(_) => None,
        };
        Self { guard, who, stream, has_right, ends_at, ambient }
    }

    /// When the token expires.
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        self.ends_at
    }

    /// Whether the answer may go on now.
    ///
    /// # Errors
    /// What a request that came now would be refused with.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let projects = self.guard.projects();
        match &self.who {
            Who::Anybody(project) => projects.get(project).map(drop).ok_or(Refusal::NoToken),
            Who::Bearer { grant, ticket } => {
                // The clock of the world may have been set back meanwhile, which makes no token younger than it was.
                if self.ends_at.is_some_and(|end| end <= Instant::now()) {
                    return Err(TokenError::Expired.into());
                }
                match self.guard.counts_by(&projects, grant, *ticket, self.ambient.now()) {
                    Ok(()) | Err(TokenError::NotYet) => {}
                    Err(error) => return Err(error.into()),
                }
                let project = projects.get(&grant.project).ok_or(TokenError::Unverified)?;
                match decide(Act::Read(&self.stream), Some(grant), project.writers) {
                    Ruling::IfPublic(refusal) | Ruling::Refused(refusal) if self.has_right => Err(refusal),
                    Ruling::Allowed | Ruling::IfPublic(_) | Ruling::Refused(_) => Ok(()),
                }
            }
        }
    }

    /// Waits until the answer may not go on.
    pub(crate) fn vigil(self: Arc<Self>) -> Vigil {
        Box::pin(async move { self.falls().await })
    }

    async fn falls(&self) -> Refusal {
        // Before the first look: whatever it does not see yet rings afterwards.
        let mut changes = self.guard.changes();
        let mut expires = pin!(self.expires());
        let mut again = Instant::now();
        loop {
            if let Err(refusal) = self.check() {
                return refusal;
            }
            let has_changed = async {
                // It cannot fail: the guard has the other end.
                drop(changes.changed().await);
                if Instant::now() < again {
                    sleep_until(again).await;
                }
            };
            tokio::select! {
                biased;
                () = &mut expires => return TokenError::Expired.into(),
                () = has_changed => {}
            }
            // All that came meanwhile is seen by one look.
            changes.mark_unchanged();
            again = Instant::now() + LOOK_AGAIN;
        }
    }

    async fn expires(&self) {
        match self.ends_at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// Waits for the end of what an answer stands on, if there is one. Cancel safe: the vigil goes on. It is not asked again
/// behind its end.
pub(crate) async fn end_of(vigil: &mut Option<Vigil>) -> Refusal {
    match vigil {
        Some(vigil) => vigil.await,
        None => std::future::pending().await,
    }
}

/// What a reader of events is told of it. Why exactly, he learns by a status when he comes back.
pub(crate) fn lapse_of(refusal: Refusal) -> Lapse {
    match refusal {
        Refusal::Token(TokenError::Expired) | Refusal::Ticket(TicketError::Expired) => Lapse::Expired,
        Refusal::NoToken
        | Refusal::Token(_)
        | Refusal::Ticket(_)
        | Refusal::Scope(_)
        | Refusal::Stream
        | Refusal::Hidden => Lapse::Revoked,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        future::ready,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use tailwater_auth::{Scopes, Streams};

    use super::*;
    use crate::issuers::Issuers;

    const PROJECT: &str = "[[project]]\nid = 'p'\n[[project.key]]\nalgorithm = 'HS256'\nsecret = 'the secret of p, and it is long enough'\n";
    /// Who judges a token asks for the time.
    static ASKED: AtomicUsize = AtomicUsize::new(0);

    fn counted_ms() -> u64 {
        ASKED.fetch_add(1, Ordering::Relaxed);
        2_000_000
    }

    /// Asks as a response that is written by the HTTP library does, for each message.
    async fn deliver_past(vigil: &mut Option<Vigil>, messages: usize) {
        for _ in 0..messages {
            tokio::select! {
                biased;
                refusal = end_of(vigil) => panic!("{refusal:?}"),
                () = ready(()) => {}
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_vigil_judges_behind_a_change_and_not_each_time_that_it_is_asked() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("projects.toml");
        fs::write(&file, PROJECT).unwrap();
        let guard = Guard::load(&file, Duration::ZERO, Issuers::none()).unwrap();
        let project = ProjectId::parse("p").unwrap();
        let grant = Grant {
            key: guard.projects().get(&project).unwrap().keys.first().unwrap().print(),
            project,
            scopes: Scopes::among(["read"]),
            streams: Streams::All,
            expires_at: 3000,
            not_before: None,
            issued_at: None,
            id: None,
        };
        let who = Who::Bearer { grant: Arc::new(grant), ticket: None };
        let ambient = Ambient { now_ms: counted_ms, random: || 0, secret: |_| {} };
        let mut vigil = Some(Arc::new(Standing::new(guard.clone(), who, "s".into(), true, ambient)).vigil());
        let before = ASKED.load(Ordering::Relaxed);
        deliver_past(&mut vigil, 1000).await;
        assert_eq!(ASKED.load(Ordering::Relaxed), before + 1, "when it began");
        fs::write(&file, PROJECT.to_owned() + &PROJECT.replace("'p'", "'q'")).unwrap();
        guard.look().await;
        deliver_past(&mut vigil, 1000).await;
        assert_eq!(ASKED.load(Ordering::Relaxed), before + 2, "once for the change");
    }
}

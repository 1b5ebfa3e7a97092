//! The watch over the store while streams are followed.
//!
//! A store that stands still does not say so: its connections stay open, and the first sign is a heartbeat that is
//! overdue after twenty seconds. Readers would be told so long that they are up to date, and those whose responses end
//! in turn would not be let in again. So while there are read sessions, reads have to be answered every so often: where
//! nothing else was, the tail of one of the followed streams is asked for. An answer that does not come makes the sessions
//! say that they have lost touch; four further streams are asked then, so that the circuit, for which one stream is not
//! the store, learns of it as well. While that is open, the watch asks as everybody does: as a probe, when it is time.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tailwater_upstream::StreamKey;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use crate::{
    naming::Place,
    way::{Pass, Way},
};

/// How long nothing may be answered before something is asked, and the pause between two such questions.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);
/// How long an answer may take before the sessions no longer claim to be in touch.
const SUSPECT: Duration = Duration::from_secs(1);
/// How many further streams are asked when one is not answered: together they are enough to open the circuit.
const OTHERS: usize = 4;

/// Who watches, over what, and with what result. A clone shares all of it.
#[derive(Clone)]
pub(crate) struct Sentry(Arc<Shared>);

struct Shared {
    followed: Mutex<Followed>,
    /// Somebody follows a stream.
    came: Notify,
    /// Whether the store is in touch.
    sound: watch::Sender<bool>,
}

#[derive(Default)]
struct Followed {
    streams: BTreeMap<u64, Stream>,
    /// The session that came last.
    last: u64,
    /// Whose stream was asked for last.
    asked: u64,
}

/// A stream that is followed, and where the store has it.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) key: StreamKey,
    pub(crate) place: Place,
}

/// A session's place in the watch: its stream may be asked for, and it hears what came of that.
pub(crate) struct Post {
    sentry: Sentry,
    id: u64,
    sound: watch::Receiver<bool>,
}

impl Sentry {
    pub(crate) fn new() -> Self {
        let sound = watch::Sender::new(true);
        Self(Arc::new(Shared { followed: Mutex::default(), came: Notify::new(), sound }))
    }

    /// A session begins to follow a stream.
    pub(crate) fn post(&self, stream: Stream) -> Post {
        let mut followed = self.followed();
        followed.last += 1;
        let id = followed.last;
        followed.streams.insert(id, stream);
        drop(followed);
        self.0.came.notify_one();
        Post { sentry: self.clone(), id, sound: self.0.sound.subscribe() }
    }

    /// Makes sure once that the store is in touch, or finds out that it is not; waits while nobody follows anything. `ask`
    /// asks for a stream's tail and tells the pass what came of it. Cancel safe.
    pub(crate) async fn round<'w, F: Future<Output = ()>>(&self, way: &'w Way, ask: impl Fn(Stream, Pass<'w>) -> F) {
        let stream = self.next_stream().await;
        let now = Instant::now();
        if now.checked_sub(INTERVAL).is_some_and(|before| way.has_answered_since(before)) {
            return self.tell(true);
        }
        let pass = match way.try_pass(&stream.key) {
            Ok(pass) => pass,
            Err(_) => {
                self.tell(false);
                way.admitted(&stream.key).await
            }
        };
        let sent = Instant::now();
        let mut first = std::pin::pin!(ask(stream.clone(), pass));
        let is_over = timeout(SUSPECT, &mut first).await.is_ok();
        if way.has_answered_since(sent) {
            return self.tell(true);
        }
        self.tell(false);
        let others = self.others(&stream.key).into_iter();
        let others = join_all(others.filter_map(|other| way.try_pass(&other.key).ok().map(|pass| ask(other, pass))));
        if is_over {
            others.await;
        } else {
            tokio::join!(first, others);
        }
        self.tell(way.has_answered_since(sent));
    }

    /// A followed stream, each in its turn.
    async fn next_stream(&self) -> Stream {
        loop {
            if let Some(stream) = self.followed().next() {
                return stream;
            }
            self.0.came.notified().await;
        }
    }

    /// Streams that are followed beside this one.
    fn others(&self, than: &StreamKey) -> Vec<Stream> {
        let mut followed = self.followed();
        let mut others: Vec<Stream> = Vec::with_capacity(OTHERS);
        // Several sessions may follow one stream, so some are looked at for nothing.
        for _ in 0..4 * OTHERS {
            let Some(stream) = followed.next() else { break };
            if stream.key != *than && others.iter().all(|other| other.key != stream.key) {
                others.push(stream);
            }
            if others.len() == OTHERS {
                break;
            }
        }
        others
    }

    /// Only what changes is told.
    pub(crate) fn tell(&self, is_sound: bool) {
        self.0.sound.send_if_modified(|sound| std::mem::replace(sound, is_sound) != is_sound);
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        // Nothing that runs under the lock can leave it half done.
        self.0.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Followed {
    fn next(&mut self) -> Option<Stream> {
        let after = self.streams.range((Excluded(self.asked), Unbounded)).next();
        let (id, stream) = after.or_else(|| self.streams.first_key_value())?;
        self.asked = *id;
        Some(stream.clone())
    }
}

impl Post {
    /// Waits for news of whether the store is in touch. Cancel safe.
    pub(crate) async fn news(&mut self) -> bool {
        // Never closed: the sentry holds the sender.
        drop(self.sound.changed().await);
        *self.sound.borrow_and_update()
    }

    /// What was said so far was about other connections.
    pub(crate) fn forget(&mut self) {
        self.sound.mark_unchanged();
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.sentry.followed().streams.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use prometheus::Registry;
    use tailwater_upstream::Traffic;
    use tokio::{task::JoinHandle, time::sleep};

    use super::*;
    use crate::{Placement, metrics::Metrics};

    /// A store that answers, or stands still, and a sentry that watches it.
    struct Scene {
        sentry: Sentry,
        way: Arc<Way>,
        stands_still: watch::Sender<bool>,
        asked: Arc<AtomicUsize>,
        watching: JoinHandle<()>,
    }

    fn stream(n: usize) -> Stream {
        let key = StreamKey::new("project", &n.to_string());
        let place = Placement::basin_per_project("tailwater").unwrap().locate(&key).unwrap();
        Stream { key, place }
    }

    impl Scene {
        fn new() -> Self {
            let meter = Arc::new(Metrics::register(&Registry::new()).unwrap());
            let (sentry, way) = (Sentry::new(), Arc::new(Way::new(Traffic::Reads, meter)));
            let (stands_still, asked) = (watch::Sender::new(false), Arc::new(AtomicUsize::new(0)));
            let watching = tokio::spawn({
                let (sentry, way, asked) = (sentry.clone(), Arc::clone(&way), Arc::clone(&asked));
                let still = stands_still.subscribe();
                async move {
                    loop {
                        sentry
                            .round(&way, |_, pass| {
                                asked.fetch_add(1, Ordering::Relaxed);
                                let mut still = still.clone();
                                async move {
                                    let answered = still.wait_for(|still| !still);
                                    pass.ended(timeout(Duration::from_secs(2), answered).await.is_ok());
                                }
                            })
                            .await;
                        sleep(INTERVAL).await;
                    }
                }
            });
            Self { sentry, way, stands_still, asked, watching }
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            self.watching.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_stands_still_is_noticed_in_two_seconds_and_left_alone_soon_after() {
        let scene = Scene::new();
        let mut posts: Vec<_> = (0..10).map(|n| scene.sentry.post(stream(n))).collect();
        sleep(Duration::from_secs(30)).await;
        assert!(posts.iter_mut().all(|post| post.news().now_or_never().is_none()), "all is well");

        scene.stands_still.send_replace(true);
        let began = Instant::now();
        assert!(!posts[0].news().await);
        assert!(began.elapsed() <= INTERVAL + SUSPECT, "{:?}", began.elapsed());
        sleep(Duration::from_secs(3)).await;
        assert!(!scene.way.is_passable(), "nothing else is sent");
        let asked = scene.asked.load(Ordering::Relaxed);
        sleep(Duration::from_secs(60)).await;
        let asked = scene.asked.load(Ordering::Relaxed) - asked;
        assert!((10..=60).contains(&asked), "it is tried all the time, by one: {asked}");

        scene.stands_still.send_replace(false);
        let returned = Instant::now();
        assert!(posts[0].news().await);
        assert!(returned.elapsed() < Duration::from_secs(2), "{:?}", returned.elapsed());
        for post in &mut posts[1..] {
            // That it was away and that it is back are one piece of news to whoever looks only now.
            assert_eq!(post.news().now_or_never(), Some(true), "everybody is told");
            assert!(post.news().now_or_never().is_none(), "once");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_asked_where_nobody_follows_or_something_was_answered_anyway() {
        let scene = Scene::new();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(scene.asked.load(Ordering::Relaxed), 0);
        let post = scene.sentry.post(stream(1));
        sleep(Duration::from_secs(10)).await;
        let asked = scene.asked.load(Ordering::Relaxed);
        assert!((4..=11).contains(&asked), "at most once a second: {asked}");
        for _ in 0..600 {
            scene.way.try_pass(&stream(2).key).ok().unwrap().ended(true);
            sleep(Duration::from_millis(100)).await;
        }
        assert!(scene.asked.load(Ordering::Relaxed) <= asked + 1);
        drop(post);
        let asked = scene.asked.load(Ordering::Relaxed);
        sleep(Duration::from_secs(60)).await;
        assert!(scene.asked.load(Ordering::Relaxed) <= asked + 1);
        assert!(scene.sentry.followed().streams.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn streams_are_asked_for_in_turn_and_each_once_however_many_follow_it() {
        let sentry = Sentry::new();
        let _posts: Vec<_> = [1, 1, 2, 2, 3].map(|n| sentry.post(stream(n))).into_iter().collect();
        let asked: Vec<_> = join_all((0..6).map(|_| sentry.next_stream())).await;
        let asked: Vec<_> = asked.iter().map(|stream| &*stream.key.stream).collect();
        assert_eq!(asked, ["1", "1", "2", "2", "3", "1"]);
        let mut others: Vec<_> = sentry.others(&stream(1).key).iter().map(|stream| stream.key.to_string()).collect();
        others.sort();
        assert_eq!(others, ["project/2", "project/3"]);
    }
}

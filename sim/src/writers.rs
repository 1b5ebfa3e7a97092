//! Clients that write, look and read: what each deed asks of a pod, and how its answer is written down.

use std::time::Duration;

use bytes::Bytes;
use tailwater_fanout::{
    Appended, Create, ForkFrom, ForkPoint, Gateway, Head, NewVisibility, OpError, Post, SourceAccess,
};
use tailwater_protocol::{Lifetime, Offset, Producer, ProducerId, ReadOffset, StreamSeq};
use tailwater_upstream::{Append, StreamKey};
use tokio::time::sleep;

use crate::{
    history::{Created, Fate, Looked, Pages, What, Why, Wrote},
    link::next_mark,
    script::{Deed, Lasts, Step, key_of},
    world::{Asked, World, text},
};

/// How often a claim is repeated in a row.
const REPEATS: usize = 30;
/// The most pages of one read.
const PAGES: usize = 3_000;
/// What the store's clock shows at the beginning.
const START_MS: u64 = 1_700_000_000_000;

/// What a client knows.
#[derive(Debug, Default)]
pub struct Memory {
    /// The stream that it is about.
    pub stream: usize,
    /// Where it goes on reading.
    pub offset: Option<Offset>,
    /// At which pod it has last followed.
    pub followed_at: Option<usize>,
    said: u64,
    epoch: u64,
    next_claim: u64,
    /// A claim of which it is not known what became of it.
    pending: Option<(Producer, Vec<Bytes>)>,
    last: Option<(Producer, Vec<Bytes>)>,
}

impl Memory {
    /// Of a client that has done nothing yet.
    #[must_use]
    pub fn of(stream: usize) -> Self {
        Self { stream, ..Self::default() }
    }
}

/// A client that writes, at one step.
pub struct Writer<'a> {
    /// Where.
    pub world: &'a World,
    /// Who.
    pub who: usize,
    /// What it knows.
    pub memory: &'a mut Memory,
}

impl Writer<'_> {
    /// Does what a step says.
    pub async fn take(&mut self, step: &Step) {
        let pod = step.pod;
        match &step.deed {
            Deed::Say { count, size, look } => {
                self.world.did("posts");
                let bodies = self.bodies(*count, *size);
                let landed = self.post(pod, bodies, None, None, false).await;
                if let (Wrote::Landed { .. }, Some(other)) = (landed, look) {
                    self.world.did("reads at another pod");
                    self.read(*other).await;
                }
            }
            Deed::Claim { count, also, epoch } => {
                let pods = |n: usize| (pod + n, also.map(|also| also + n));
                self.claim(pods, *count, *epoch).await;
            }
            Deed::ClaimAgain => self.claim_again(pod).await,
            Deed::Number => {
                self.world.did("posts with a number");
                self.world.numbers.set(self.world.numbers.get() + 1);
                let seq = StreamSeq::new(format!("{:08}", self.world.numbers.get()).as_bytes()).ok();
                let bodies = self.bodies(1, 0);
                self.post(pod, bodies, None, seq, false).await;
            }
            Deed::Large { kib } => {
                self.world.did("large posts");
                let bodies = self.bodies(1, kib * 1024);
                self.post(pod, bodies, None, None, false).await;
            }
            Deed::Close { count } => {
                self.world.did("closes");
                let bodies = self.bodies(*count, 0);
                self.post(pod, bodies, None, None, true).await;
            }
            Deed::Create => {
                self.world.did("creates");
                let stream = self.memory.stream;
                self.create(pod, stream).await;
            }
            Deed::Delete => {
                self.world.did("deletes");
                self.delete(pod).await;
            }
            Deed::Fork { into, back } => {
                self.world.did("forks");
                self.fork(pod, *into, back.is_some()).await;
            }
            Deed::Native { count } => {
                self.world.did("native appends");
                let bodies = self.bodies(*count, 0);
                self.world.store.append_native(&self.key(), bodies);
            }
            Deed::NativeTrim { keep } => self.native_trim(*keep),
            Deed::NextMark => {
                if self.world.store.tail(&self.key()).is_some() {
                    self.world.did("marks of the next version");
                    drop(self.world.store.land(&self.key(), Append::new(vec![next_mark()])));
                }
            }
            Deed::Head => {
                self.world.did("heads");
                self.head(pod).await;
            }
            Deed::Read => {
                self.world.did("reads");
                self.read(pod).await;
            }
            Deed::Follow(_) => unreachable!("readers follow"),
        }
    }

    fn key(&self) -> StreamKey {
        key_of(self.memory.stream)
    }

    /// Bodies that nobody else ever wrote.
    fn bodies(&mut self, count: usize, size: usize) -> Vec<Bytes> {
        self.memory.said += 1;
        let body = |n| {
            let mut body = format!("<{}.{}.{n}>", self.who, self.memory.said).into_bytes();
            body.resize(body.len().max(size), b'.');
            Bytes::from(body)
        };
        (0..count).map(body).collect()
    }

    async fn post(
        &self,
        pod: usize,
        bodies: Vec<Bytes>,
        claim: Option<Producer>,
        stream_seq: Option<StreamSeq>,
        close: bool,
    ) -> Wrote {
        let key = self.key();
        let post =
            Post { messages: bodies.clone(), content_type: Some(text()), producer: claim.clone(), stream_seq, close };
        let from = self.world.store.landed();
        let asked = self.world.ask(pod, async |gateway: Gateway| gateway.append(&key, post).await).await;
        let answer = match asked {
            Asked::Cut => Wrote::Unknown,
            Asked::Answer(Ok(Appended::Landed { next, closed })) => Wrote::Landed { next, closed },
            Asked::Answer(Ok(Appended::Duplicate { .. })) => Wrote::Duplicate,
            Asked::Answer(Ok(Appended::AlreadyClosed { .. })) => Wrote::AlreadyClosed,
            Asked::Answer(Err(error)) => Why::of(&error).map_or(Wrote::Unknown, Wrote::Refused),
        };
        let what = What::Wrote { bodies, claim, closes: close, answer: answer.clone() };
        self.world.tell(self.who, &key, from, what);
        answer
    }

    /// A POST of one short message.
    pub async fn say(&mut self, pod: usize) -> Wrote {
        let bodies = self.bodies(1, 0);
        self.post(pod, bodies, None, None, false).await
    }

    /// The next claim of one message, repeated at the same pod. Whether it was accepted.
    pub async fn claim_at(&mut self, pod: usize) -> bool {
        self.claim(|_| (pod, None), 1, false).await
    }

    /// The next claim, repeated until it is known what became of it; `pods` says where the n-th attempt goes, and where
    /// the same goes at the same time. Whether it was accepted.
    async fn claim(&mut self, pods: impl Fn(usize) -> (usize, Option<usize>), count: usize, epoch: bool) -> bool {
        self.world.did("claims");
        if self.memory.pending.is_none() {
            if epoch {
                self.world.did("epochs");
                (self.memory.epoch, self.memory.next_claim) = (self.memory.epoch + 1, 0);
            }
            let id = ProducerId::new(&format!("producer {}", self.who)).expect("it is an id");
            let claim = Producer { id, epoch: self.memory.epoch, seq: self.memory.next_claim };
            self.memory.pending = Some((claim, self.bodies(count, 0)));
        }
        let Some((claim, bodies)) = self.memory.pending.clone() else { return false };
        for n in 0..REPEATS {
            let (here, there) = pods(n);
            let answer = match there {
                None => self.post(here, bodies.clone(), Some(claim.clone()), None, false).await,
                Some(there) => {
                    self.world.did("claims at two pods at once");
                    let one = self.post(here, bodies.clone(), Some(claim.clone()), None, false);
                    let two = self.post(there, bodies.clone(), Some(claim.clone()), None, false);
                    let (one, two) = futures_util::future::join(one, two).await;
                    if matches!(one, Wrote::Landed { .. } | Wrote::Duplicate) { one } else { two }
                }
            };
            match answer {
                Wrote::Landed { .. } | Wrote::Duplicate => {
                    self.memory.next_claim = claim.seq + 1;
                    self.memory.last = self.memory.pending.take();
                    return true;
                }
                Wrote::Refused(Why::Later) | Wrote::Unknown => sleep(Duration::from_millis(40)).await,
                Wrote::Refused(why) => {
                    self.memory.pending = None;
                    // Another life, maybe: another attempt may have landed there, so its number must not be used again.
                    let current = if let Why::Stale(current) = why { current } else { self.memory.epoch };
                    (self.memory.epoch, self.memory.next_claim) = (current + 1, 0);
                    return false;
                }
                Wrote::AlreadyClosed => return false,
            }
        }
        false
    }

    async fn claim_again(&mut self, pod: usize) {
        let Some((claim, bodies)) = self.memory.last.clone() else { return };
        self.world.did("claims repeated");
        self.post(pod, bodies, Some(claim), None, false).await;
    }

    fn native_trim(&self, keep: u64) {
        let (store, key) = (&self.world.store, self.key());
        let untouched = store.token(&key).is_some_and(|token| token.is_empty());
        if let Some(tail) = store.tail(&key).filter(|_| untouched) {
            self.world.did("native trims");
            let trim = tailwater_log::NewRecord::trim(tail.seq.saturating_sub(keep));
            drop(store.land(&key, Append::new(vec![trim])));
        }
    }

    fn new_stream(&self, stream: usize, messages: Vec<Bytes>) -> Create {
        let lifetime = match self.world.script.streams[stream].lasts {
            Lasts::Forever => Lifetime::Forever,
            Lasts::Ttl(seconds) => Lifetime::Ttl { seconds },
            Lasts::Until(seconds) => Lifetime::ExpiresAt { at_ms: START_MS + seconds * 1000 },
        };
        Create {
            content_type: Some(text()),
            lifetime: Some(lifetime),
            visibility: NewVisibility::Undeclared,
            messages,
            closed: false,
            fork: None,
        }
    }

    /// Creates a stream with one message.
    pub async fn create(&mut self, pod: usize, stream: usize) -> Created {
        let bodies = self.bodies(1, 0);
        let create = self.new_stream(stream, bodies.clone());
        self.put(pod, &key_of(stream), create, bodies, None).await
    }

    /// Creates a stream that lasts for ever, and that no script knows.
    pub async fn create_plain(&mut self, pod: usize, key: &StreamKey) {
        let create = Create { lifetime: None, ..self.new_stream(0, Vec::new()) };
        self.put(pod, key, create, Vec::new(), None).await;
    }

    async fn put(
        &self,
        pod: usize,
        key: &StreamKey,
        create: Create,
        bodies: Vec<Bytes>,
        fork: Option<(StreamKey, bool)>,
    ) -> Created {
        let from = self.world.store.landed();
        let asked = self.world.ask(pod, async |gateway: Gateway| gateway.create(key, create).await).await;
        let answer = match asked {
            Asked::Cut => Created::Unknown,
            Asked::Answer(Ok(created)) if created.fresh => Created::Fresh,
            Asked::Answer(Ok(_)) => Created::Existed,
            Asked::Answer(Err(error)) => Why::of(&error).map_or(Created::Unknown, Created::Refused),
        };
        self.world.tell(self.who, key, from, What::Created { bodies, fork, answer: answer.clone() });
        answer
    }

    async fn fork(&mut self, pod: usize, into: usize, at_a_page: bool) {
        let source = self.key();
        let mut at = ForkPoint::Tail;
        if at_a_page {
            let page = async |gateway: Gateway| gateway.read(&source, ReadOffset::Start).await;
            let Asked::Answer(Ok(page)) = self.world.ask(pod, page).await else { return };
            at = ForkPoint::At(page.next);
        }
        let fork = ForkFrom { source: source.clone(), access: SourceAccess::Any, at, sub_offset: 0 };
        let create = Create { fork: Some(fork), content_type: None, ..self.new_stream(into, Vec::new()) };
        self.put(pod, &key_of(into), create, Vec::new(), Some((source, !at_a_page))).await;
    }

    /// Deletes the client's stream.
    pub async fn delete(&self, pod: usize) -> Fate {
        let (key, from) = (self.key(), self.world.store.landed());
        let asked = self.world.ask(pod, async |gateway: Gateway| gateway.delete(&key).await).await;
        let fate = match asked {
            Asked::Cut => Fate::Unknown,
            Asked::Answer(Ok(())) => Fate::Done,
            Asked::Answer(Err(error)) => Why::of(&error).map_or(Fate::Unknown, Fate::Refused),
        };
        self.world.tell(self.who, &key, from, What::Deleted(fate.clone()));
        fate
    }

    /// Closes the client's stream without a message.
    pub async fn close(&self, pod: usize) -> Wrote {
        self.post(pod, Vec::new(), None, None, true).await
    }

    async fn head(&self, pod: usize) {
        let (key, from) = (self.key(), self.world.store.landed());
        let asked = self.world.ask(pod, async |gateway: Gateway| gateway.head(&key).await).await;
        let looked: Looked<Head> = found(asked);
        self.world.tell(self.who, &key, from, What::Looked(looked));
    }

    /// Reads from the start to the tail.
    pub async fn read(&self, pod: usize) {
        let (key, from) = (self.key(), self.world.store.landed());
        let asked = self.world.ask(pod, async |gateway: Gateway| read_all(&gateway, &key).await).await;
        self.world.tell(self.who, &key, from, What::Read(found(asked)));
    }
}

fn found<T>(asked: Asked<Result<T, OpError>>) -> Looked<T> {
    match asked {
        Asked::Cut => Looked::Nothing,
        Asked::Answer(Ok(found)) => Looked::Found(found),
        Asked::Answer(Err(error)) => Why::of(&error).map_or(Looked::Nothing, Looked::Refused),
    }
}

/// Reads page by page; what was read stands where a later page fails.
///
/// # Errors
/// Where the first page fails.
pub async fn read_all(gateway: &Gateway, key: &StreamKey) -> Result<Pages, OpError> {
    let page = gateway.read(key, ReadOffset::Start).await?;
    let mut pages = Pages {
        start: page.start,
        messages: page.messages,
        next: page.next,
        whole: page.up_to_date,
        closed: page.head.closed,
    };
    for _ in 0..PAGES {
        if pages.whole {
            break;
        }
        let Ok(page) = gateway.read(key, ReadOffset::At(pages.next)).await else { break };
        pages.messages.extend(page.messages);
        (pages.next, pages.whole, pages.closed) = (page.next, page.up_to_date, page.head.closed);
    }
    Ok(pages)
}

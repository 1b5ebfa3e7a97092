//! When keys are fetched, and how long they count.
//!
//! A source is an issuer and the URL that was configured for it; in it a key is found by its id and its algorithm. Who
//! looks something up may be told to fetch: at most one fetch of a source is under way.
//!
//! - Keys are fetched again when they are no longer *fresh*, as long as their `Cache-Control` says within [`MIN_FRESH`] and
//!   [`MAX_FRESH`]; meanwhile they count. Only those that nobody has asked for beyond [`MAX_FRESH`] wait for the fetch:
//!   they may have been withdrawn long ago.
//! - Without a fetch that succeeds they count for [`KEPT_FOR`], and no longer: what an issuer has withdrawn must end.
//! - While fetches fail, nothing can be said of a key that is not known.
//! - What a key has let in and lasts goes on until its issuer is known to have it no more. That keys are too old to count, or
//!   that they are to be fetched from elsewhere now, says nothing of that: they *lapse*, until a fetch tells.
//! - An id that is not known may be new, so it is worth a fetch, but whoever makes ids up must not make the gateway fetch
//!   each time: after any fetch, unknown ids are unknown for a while, twice as long after each fetch that did not bring what
//!   it was for. All ids share that pause, so there is nothing to remember of any of them.
//! - After a failure there is a pause, twice as long after each.

use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use crate::{
    jwks::{Jwks, JwksUrl},
    key::{Algorithm, Key, KeyId, KeyPrint},
};

/// The shortest time for which keys are fresh.
pub const MIN_FRESH: Duration = Duration::from_secs(60);
/// The longest; also without a word from the issuer it is not longer than [`DEFAULT_FRESH`].
pub const MAX_FRESH: Duration = Duration::from_secs(15 * 60);
/// For how long keys are fresh of which nothing else is said.
pub const DEFAULT_FRESH: Duration = Duration::from_secs(5 * 60);
/// For how long keys count after they were fetched, if no fetch succeeds since.
pub const KEPT_FOR: Duration = Duration::from_secs(3600);

/// The pause after a fetch in which no unknown id is worth another.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(30);
/// The longest such pause.
const MAX_UNKNOWN_PAUSE: Duration = Duration::from_secs(5 * 60);
/// The pause after a failure.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause.
const MAX_FAILURE_PAUSE: Duration = Duration::from_secs(60);
/// The most keys that lapse with one source. What others have let in ends as if they were withdrawn.
const MAX_LAPSED: usize = 1024;
/// After this, a fetch that nobody has reported the end of has none.
const FETCH_LOST_AFTER: Duration = Duration::from_secs(30);

/// Whose keys, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// What `iss` is in its tokens.
    pub issuer: String,
    /// Where its keys are.
    pub url: JwksUrl,
}

/// Which key of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The one that a token's header names.
    Named(KeyId, Algorithm),
    /// The one that a ticket was got with.
    Print(KeyPrint),
}

/// A fetch, to be told apart from others of the same source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchId(u64);

/// What became of a fetch.
#[derive(Debug)]
pub enum Fetch {
    /// It brought keys, and perhaps says how long they are fresh.
    Keys(Jwks, Option<Duration>),
    /// It brought none that count: no connection, another status than 200, no set of keys.
    Failed,
}

/// What is known of a key.
#[derive(Debug)]
pub enum Found<'c> {
    /// This is it.
    Key(&'c Key),
    /// It may come with the fetch that is under way.
    Pending,
    /// There is none.
    Unknown,
    /// That cannot be told: the last fetch failed, and there is another after this time at the earliest.
    Away(Duration),
}

/// The answer to a look-up.
#[derive(Debug)]
pub struct Lookup<'c> {
    /// What is known.
    pub found: Found<'c>,
    /// Whoever has asked is to fetch the source's keys, and to [report](JwksCache::fetched) what became of it.
    pub fetch: Option<FetchId>,
}

/// The keys of all sources. Times are since any one moment, and do not go back.
#[derive(Debug, Default)]
pub struct JwksCache {
    sources: HashMap<Source, Entry>,
    fetches: u64,
}

#[derive(Debug, Default)]
struct Entry {
    keys: Vec<Key>,
    /// Keys that have counted, as long as none are known.
    lapsed: Arc<[KeyPrint]>,
    /// When the last fetch that succeeded was reported, and for how long its keys are fresh.
    fetched: Option<(Duration, Duration)>,
    under_way: Option<UnderWay>,
    failures: u32,
    /// Before this there is no fetch.
    not_before: Duration,
    /// How many fetches in a row did not bring the key that they were for.
    fruitless: u32,
}

#[derive(Debug)]
struct UnderWay {
    id: FetchId,
    since: Duration,
    /// The unknown key that it is for, if it is for one.
    wanted: Option<Wanted>,
}

impl JwksCache {
    /// Knows these sources from now on, and no others; keys of those that stay stay. Keys of those that go lapse with those
    /// that come: one may stand for the other. Tells what is to be fetched to know that, as a look-up does.
    pub fn configure(&mut self, sources: impl IntoIterator<Item = Source>, now: Duration) -> Vec<(Source, FetchId)> {
        let mut old = mem::take(&mut self.sources);
        let sources: Vec<Source> = sources.into_iter().collect();
        self.sources = sources.iter().filter_map(|source| old.remove_entry(source)).collect();
        let lapsed: Arc<[KeyPrint]> = old.values().flat_map(Entry::prints).take(MAX_LAPSED).collect();
        let mut fetches = Vec::new();
        for source in sources {
            self.sources.entry(source.clone()).or_insert_with(|| {
                let mut entry = Entry { lapsed: Arc::clone(&lapsed), ..Entry::default() };
                if !lapsed.is_empty() {
                    self.fetches += 1;
                    let id = FetchId(self.fetches);
                    entry.under_way = Some(UnderWay { id, since: now, wanted: None });
                    fetches.push((source, id));
                }
                entry
            });
        }
        fetches
    }

    /// A key, as far as it is known.
    pub fn look_up(&mut self, source: &Source, wanted: &Wanted, now: Duration) -> Lookup<'_> {
        let Some(entry) = self.sources.get_mut(source) else { return Lookup { found: Found::Unknown, fetch: None } };
        entry.drop_what_is_too_old(now);
        let is_known = entry.has(wanted);
        let fetch = (entry.may_fetch(now) && (entry.is_stale(now) || !is_known && entry.may_be_new(now))).then(|| {
            self.fetches += 1;
            FetchId(self.fetches)
        });
        if let Some(id) = fetch {
            entry.under_way = Some(UnderWay { id, since: now, wanted: (!is_known).then(|| wanted.clone()) });
        }
        let is_pending = entry.is_under_way(now);
        // Nobody has asked for these since they became stale, and the issuer was not found to be away.
        let is_forgotten = entry.failures == 0 && entry.is_older_than(MAX_FRESH, now);
        let found = match entry.keys.iter().find(|key| wanted.is(key)) {
            Some(key) if !(is_pending && is_forgotten) => Found::Key(key),
            Some(_) => Found::Pending,
            None if is_pending => Found::Pending,
            None if entry.failures > 0 => Found::Away(entry.not_before.saturating_sub(now)),
            None => Found::Unknown,
        };
        Lookup { found, fetch }
    }

    /// Whether what a key has let in may go on, as far as is known: it was the issuer's, and no fetch has said that it is so
    /// no more. This lets nobody in, and nothing is fetched for it.
    #[must_use]
    pub fn still_has(&self, source: &Source, print: KeyPrint) -> bool {
        self.sources.get(source).is_some_and(|entry| entry.prints().any(|known| known == print))
    }

    /// Of how many sources the last fetch failed.
    #[must_use]
    pub fn failing(&self) -> usize {
        self.sources.values().filter(|entry| entry.failures > 0).count()
    }

    /// A fetch has ended; whether a key that counted, or has lapsed, does so no more. A fetch that is not the source's last is of no
    /// interest: its keys may be older.
    pub fn fetched(&mut self, source: &Source, id: FetchId, fetch: Fetch, now: Duration) -> bool {
        let Some(entry) = self.sources.get_mut(source) else { return false };
        let Some(UnderWay { wanted, .. }) = entry.under_way.take_if(|under_way| under_way.id == id) else {
            return false;
        };
        match fetch {
            Fetch::Failed => {
                entry.not_before = now + doubled(FAILURE_PAUSE, entry.failures, MAX_FAILURE_PAUSE);
                entry.failures = entry.failures.saturating_add(1);
                false
            }
            Fetch::Keys(jwks, fresh) => {
                let before: Vec<KeyPrint> = entry.prints().collect();
                entry.keys = jwks.keys;
                entry.lapsed = Arc::default();
                entry.fetched = Some((now, fresh.unwrap_or(DEFAULT_FRESH).clamp(MIN_FRESH, MAX_FRESH)));
                entry.failures = 0;
                if let Some(wanted) = wanted {
                    let came = entry.has(&wanted);
                    entry.fruitless = if came { 0 } else { entry.fruitless.saturating_add(1) };
                }
                before.into_iter().any(|print| !entry.has(&Wanted::Print(print)))
            }
        }
    }
}

impl Wanted {
    fn is(&self, key: &Key) -> bool {
        match self {
            Self::Named(id, algorithm) => key.id() == Some(id) && key.algorithm() == *algorithm,
            Self::Print(print) => key.print() == *print,
        }
    }
}

impl Entry {
    fn has(&self, wanted: &Wanted) -> bool {
        self.keys.iter().any(|key| wanted.is(key))
    }

    fn drop_what_is_too_old(&mut self, now: Duration) {
        if self.is_older_than(KEPT_FOR, now) {
            self.lapsed = self.prints().collect();
            self.keys.clear();
            self.fetched = None;
        }
    }

    fn prints(&self) -> impl Iterator<Item = KeyPrint> {
        self.keys.iter().map(Key::print).chain(self.lapsed.iter().copied())
    }

    fn is_older_than(&self, age: Duration, now: Duration) -> bool {
        self.fetched.is_some_and(|(at, _)| now.saturating_sub(at) >= age)
    }

    fn is_stale(&self, now: Duration) -> bool {
        self.fetched.is_none_or(|(at, fresh)| now.saturating_sub(at) >= fresh)
    }

    /// Whether an id that is not known may have come since.
    fn may_be_new(&self, now: Duration) -> bool {
        let pause = doubled(UNKNOWN_PAUSE, self.fruitless, MAX_UNKNOWN_PAUSE);
        self.fetched.is_none_or(|(at, _)| now.saturating_sub(at) >= pause)
    }

    fn may_fetch(&self, now: Duration) -> bool {
        !self.is_under_way(now) && now >= self.not_before
    }

    fn is_under_way(&self, now: Duration) -> bool {
        self.under_way.as_ref().is_some_and(|under_way| now.saturating_sub(under_way.since) < FETCH_LOST_AFTER)
    }
}

fn doubled(pause: Duration, times: u32, most: Duration) -> Duration {
    pause.saturating_mul(1 << times.min(16)).min(most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn id(text: &str) -> KeyId {
        KeyId::parse(text).unwrap()
    }

    fn named(kid: &str) -> Wanted {
        Wanted::Named(id(kid), Algorithm::EdDsa)
    }

    fn source(issuer: &str, path: &str) -> Source {
        let url = format!("https://login.example/{path}");
        Source { issuer: issuer.to_owned(), url: JwksUrl::parse(&url).unwrap() }
    }

    fn login() -> Source {
        source("https://login.example", "keys")
    }

    fn keys(ids: &[&str]) -> Fetch {
        let keys = ids.iter().map(|kid| Key::ed25519(id(kid), &[7; 32])).collect();
        Fetch::Keys(Jwks { keys, passed_over: Vec::new() }, None)
    }

    fn cache() -> JwksCache {
        let mut cache = JwksCache::default();
        assert_eq!(cache.configure([login()], at(0)), []);
        cache
    }

    /// What is known of a key, in a word, and the fetch to be made.
    fn asked(cache: &mut JwksCache, kid: &str, now: u64) -> (&'static str, Option<FetchId>) {
        let Lookup { found, fetch } = cache.look_up(&login(), &named(kid), at(now));
        let word = match found {
            Found::Key(key) => {
                assert_eq!(key.id(), Some(&id(kid)));
                "known"
            }
            Found::Pending => "pending",
            Found::Unknown => "unknown",
            Found::Away(_) => "away",
        };
        (word, fetch)
    }

    /// A cache that has fetched these at the beginning.
    fn filled(ids: &[&str]) -> JwksCache {
        let mut cache = cache();
        let (_, fetch) = asked(&mut cache, ids[0], 0);
        cache.fetched(&login(), fetch.unwrap(), keys(ids), at(0));
        cache
    }

    #[test]
    fn the_first_who_asks_fetches_and_the_others_wait() {
        let mut cache = cache();
        let (word, fetch) = asked(&mut cache, "a", 0);
        assert_eq!(
            (word, asked(&mut cache, "a", 1), asked(&mut cache, "b", 1)),
            ("pending", ("pending", None), ("pending", None))
        );
        cache.fetched(&login(), fetch.unwrap(), keys(&["a"]), at(2));
        assert_eq!((asked(&mut cache, "a", 2), asked(&mut cache, "b", 2)), (("known", None), ("unknown", None)));
    }

    #[test]
    fn a_key_is_found_by_issuer_url_id_and_algorithm() {
        let mut cache = filled(&["a"]);
        let strangers = [source("https://login.example", "other"), source("https://evil.example", "keys")];
        for stranger in strangers {
            let Lookup { found, fetch } = cache.look_up(&stranger, &named("a"), at(0));
            assert!(matches!(found, Found::Unknown) && fetch.is_none(), "nobody has configured it");
        }
        for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::Hs256] {
            let Lookup { found, fetch } = cache.look_up(&login(), &Wanted::Named(id("a"), algorithm), at(0));
            assert!(matches!(found, Found::Unknown) && fetch.is_none());
        }
    }

    #[test]
    fn the_key_of_a_ticket_is_found_by_its_print_and_fetched_if_it_may_be_new() {
        let mut cache = filled(&["a"]);
        let print = Key::ed25519(id("whatever"), &[7; 32]).print();
        let other = Wanted::Print(Key::ed25519(id("a"), &[8; 32]).print());
        let known = cache.look_up(&login(), &Wanted::Print(print), at(1));
        assert!(matches!(known.found, Found::Key(key) if key.id() == Some(&id("a"))) && known.fetch.is_none());
        let early = cache.look_up(&login(), &other, at(29));
        assert!(matches!(early.found, Found::Unknown) && early.fetch.is_none());
        let later = cache.look_up(&login(), &other, at(30));
        assert!(matches!(later.found, Found::Pending) && later.fetch.is_some());
    }

    #[test]
    fn stale_keys_count_while_they_are_fetched_again() {
        let mut cache = filled(&["a"]);
        assert_eq!(asked(&mut cache, "a", 299), ("known", None));
        let (word, fetch) = asked(&mut cache, "a", 300);
        assert_eq!((word, fetch.is_some(), asked(&mut cache, "a", 301)), ("known", true, ("known", None)));
        assert!(!cache.fetched(&login(), fetch.unwrap(), keys(&["b"]), at(302)), "it is the same key by another name");
        assert_eq!((asked(&mut cache, "a", 302).0, asked(&mut cache, "b", 302).0), ("unknown", "known"));
    }

    #[test]
    fn keys_end_though_their_issuer_cannot_be_reached() {
        let mut cache = filled(&["a"]);
        for now in 300..3600 {
            let (word, fetch) = asked(&mut cache, "a", now);
            assert_eq!(word, "known", "{now}");
            if let Some(fetch) = fetch {
                cache.fetched(&login(), fetch, Fetch::Failed, at(now));
            }
        }
        let word = asked(&mut cache, "a", 3600).0;
        assert!(["pending", "away"].contains(&word) && cache.sources[&login()].keys.is_empty());
    }

    #[test]
    fn while_an_issuer_is_away_nothing_is_said_of_a_key_that_is_not_known() {
        let mut cache = filled(&["a"]);
        let fetch = asked(&mut cache, "new", 30).1.unwrap();
        cache.fetched(&login(), fetch, Fetch::Failed, at(30));
        assert_eq!((asked(&mut cache, "new", 30), asked(&mut cache, "a", 30)), (("away", None), ("known", None)));
        let away = cache.look_up(&login(), &named("new"), Duration::from_millis(30_250));
        assert!(matches!(away.found, Found::Away(wait) if wait == Duration::from_millis(750)));
        assert_eq!(cache.failing(), 1);
        let fetch = asked(&mut cache, "new", 31).1.unwrap();
        cache.fetched(&login(), fetch, keys(&["a"]), at(31));
        assert_eq!((asked(&mut cache, "new", 31), cache.failing()), (("unknown", None), 0));
    }

    #[test]
    fn a_key_that_goes_is_told_of() {
        let key = |byte: u8| Key::ed25519(id(&byte.to_string()), &[byte; 32]);
        let sets = [(vec![1], false), (vec![1, 2], false), (vec![2, 1], false), (vec![2], true), (vec![], true)];
        let (mut cache, mut now) = (cache(), 0);
        for (bytes, goes) in sets {
            let fetch = asked(&mut cache, "a", now).1.unwrap();
            let jwks = Jwks { keys: bytes.iter().copied().map(key).collect(), passed_over: Vec::new() };
            assert_eq!(cache.fetched(&login(), fetch, Fetch::Keys(jwks, None), at(now)), goes, "{bytes:?}");
            now += 300;
        }
        let fetch = asked(&mut cache, "a", now).1.unwrap();
        assert!(!cache.fetched(&login(), fetch, Fetch::Failed, at(now)));
    }

    #[test]
    fn keys_that_nobody_has_asked_for_wait_for_the_fetch() {
        let mut cache = filled(&["a"]);
        let (word, fetch) = asked(&mut cache, "a", 900);
        assert_eq!((word, asked(&mut cache, "a", 901)), ("pending", ("pending", None)));
        cache.fetched(&login(), fetch.unwrap(), keys(&["b"]), at(901));
        assert_eq!(asked(&mut cache, "a", 901).0, "unknown", "it was withdrawn long ago");

        let mut cache = filled(&["a"]);
        let fetch = asked(&mut cache, "a", 900).1.unwrap();
        cache.fetched(&login(), fetch, Fetch::Failed, at(901));
        assert_eq!(asked(&mut cache, "a", 901), ("known", None), "its issuer is away");
    }

    #[test]
    fn a_failure_is_not_repeated_at_once() {
        let mut cache = cache();
        let mut tries = Vec::new();
        for now in 0..300 {
            if let (_, Some(fetch)) = asked(&mut cache, "a", now) {
                tries.push(now);
                cache.fetched(&login(), fetch, Fetch::Failed, at(now));
            }
        }
        assert_eq!(tries, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
    }

    #[test]
    fn a_fetch_that_is_lost_does_not_hold_up_others_and_comes_too_late() {
        let mut cache = cache();
        let lost = asked(&mut cache, "a", 0).1.unwrap();
        assert_eq!(asked(&mut cache, "a", 29), ("pending", None));
        let second = asked(&mut cache, "a", 30).1.unwrap();
        cache.fetched(&login(), lost, keys(&["old"]), at(31));
        assert_eq!(asked(&mut cache, "old", 31), ("pending", None));
        cache.fetched(&login(), second, keys(&["a"]), at(32));
        cache.fetched(&login(), second, keys(&["again"]), at(33));
        assert_eq!((asked(&mut cache, "a", 33).0, asked(&mut cache, "again", 33).0), ("known", "unknown"));
    }

    #[test]
    fn a_new_key_is_found_half_a_minute_after_the_last_fetch() {
        let mut cache = filled(&["a"]);
        assert_eq!(asked(&mut cache, "new", 29), ("unknown", None));
        let fetch = asked(&mut cache, "new", 30).1.unwrap();
        cache.fetched(&login(), fetch, keys(&["a", "new"]), at(31));
        assert_eq!(asked(&mut cache, "new", 31), ("known", None));
        assert_eq!(cache.sources[&login()].fruitless, 0);
    }

    #[test]
    fn made_up_ids_do_not_make_it_fetch_each_time() {
        let mut cache = filled(&["a"]);
        let mut fetches = 0;
        for now in 1..3600 {
            for n in 0..3 {
                if let (_, Some(fetch)) = asked(&mut cache, &format!("made-up-{now}-{n}"), now) {
                    fetches += 1;
                    cache.fetched(&login(), fetch, keys(&["a"]), at(now));
                }
            }
        }
        assert!((12..=16).contains(&fetches), "{fetches} fetches in an hour, 12 of them due anyway");
        assert!(cache.sources[&login()].keys.len() == 1, "nothing is remembered of them");
    }

    #[test]
    fn how_long_keys_are_fresh_is_bounded() {
        for (said, fresh) in [(Some(0), 60), (Some(59), 60), (Some(100), 100), (Some(86_400), 900), (None, 300)] {
            let mut cache = cache();
            let fetch = asked(&mut cache, "a", 0).1.unwrap();
            let Fetch::Keys(jwks, _) = keys(&["a"]) else { unreachable!("these are keys") };
            cache.fetched(&login(), fetch, Fetch::Keys(jwks, said.map(at)), at(0));
            assert_eq!(asked(&mut cache, "a", fresh - 1).1, None, "{said:?}");
            assert!(asked(&mut cache, "a", fresh).1.is_some(), "{said:?}");
        }
    }

    #[test]
    fn another_configuration_keeps_what_stays_and_forgets_what_goes() {
        let mut cache = filled(&["a"]);
        assert_eq!(cache.configure([login(), source("x", "y")], at(1)), [], "none has gone");
        assert_eq!(asked(&mut cache, "a", 1), ("known", None));
        cache.configure([source("x", "y")], at(1));
        assert_eq!(asked(&mut cache, "a", 1), ("unknown", None));
    }

    fn print_of(byte: u8) -> KeyPrint {
        Key::ed25519(id("any"), &[byte; 32]).print()
    }

    #[test]
    fn what_was_let_in_goes_on_until_a_fetch_says_that_its_key_is_gone() {
        for (after, goes) in [(&["a"][..], false), (&[], true)] {
            let mut cache = filled(&["a"]);
            assert!(cache.still_has(&login(), print_of(7)) && !cache.still_has(&login(), print_of(8)));
            let fetch = asked(&mut cache, "a", 3600).1.unwrap();
            assert_eq!(asked(&mut cache, "a", 3601).0, "pending", "it lets nobody in");
            assert!(cache.still_has(&login(), print_of(7)) && !cache.still_has(&login(), print_of(8)));
            cache.fetched(&login(), fetch, Fetch::Failed, at(3602));
            assert!(cache.still_has(&login(), print_of(7)));
            let fetch = asked(&mut cache, "a", 3700).1.unwrap();
            assert_eq!(cache.fetched(&login(), fetch, keys(after), at(3700)), goes, "it is told of");
            assert_eq!(cache.still_has(&login(), print_of(7)), !goes);
        }
    }

    #[test]
    fn a_source_that_stands_for_another_is_fetched_before_anything_ends_for_it() {
        for (after, goes) in [(&["b"][..], false), (&[], true)] {
            let mut cache = filled(&["a"]);
            let moved = source("https://login.example", "other");
            let fetches = cache.configure([moved.clone()], at(1));
            let [(of, fetch)] = fetches.as_slice() else { panic!("{fetches:?}") };
            assert_eq!(*of, moved);
            assert!(cache.still_has(&moved, print_of(7)) && !cache.still_has(&moved, print_of(8)));
            assert!(!cache.still_has(&login(), print_of(7)), "nobody has it any more");
            assert!(matches!(cache.look_up(&moved, &Wanted::Print(print_of(7)), at(1)).found, Found::Pending));
            // Once more, before it was known.
            assert_eq!(cache.configure([moved.clone()], at(1)), []);
            assert_eq!(cache.fetched(&moved, *fetch, keys(after), at(2)), goes);
            assert_eq!(cache.still_has(&moved, print_of(7)), !goes);
        }
        assert_eq!(filled(&["a"]).configure([], at(1)), []);
    }

    #[test]
    fn no_more_keys_lapse_than_may() {
        let mut cache = filled(&["a"]);
        let entry = cache.sources.get_mut(&login()).unwrap();
        entry.lapsed = (0..2 * MAX_LAPSED).map(|n| KeyPrint((n as u64).to_be_bytes())).collect();
        let moved = source("https://login.example", "other");
        cache.configure([moved.clone()], at(1));
        assert_eq!(cache.sources[&moved].lapsed.len(), MAX_LAPSED);
        assert!(cache.still_has(&moved, print_of(7)), "those that count come first");
    }

    proptest! {
        /// Whoever asks for whatever: fetches are few, one at a time, and an old key ends.
        #[test]
        fn fetches_are_bounded(steps in prop::collection::vec((0..90_u64, 0..4_u8, any::<bool>(), 0..3_u8), 1..120)) {
            let mut cache = cache();
            let (mut now, mut under_way, mut started) = (0, Vec::new(), Vec::new());
            for (pause, kid, reports, outcome) in steps {
                now += pause;
                if let (_, Some(fetch)) = asked(&mut cache, &kid.to_string(), now) {
                    started.push(now);
                    under_way.push(fetch);
                }
                if reports && let Some(fetch) = under_way.pop() {
                    let fetch_of = match outcome { 0 => Fetch::Failed, 1 => keys(&["1"]), _ => keys(&["1", "2"]) };
                    cache.fetched(&login(), fetch, fetch_of, at(now));
                }
            }
            // Of any eleven in a row, the pauses alone take more than half a minute.
            for window in started.windows(11) {
                prop_assert!(window[10] - window[0] >= 30, "{:?}", window);
            }
        }
    }
}

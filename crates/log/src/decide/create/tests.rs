use std::sync::Arc;

use super::*;
use crate::{
    BATCH_RESERVE, Entry, Fork, MAX_BATCH_BYTES, MAX_FORK_DEPTH, Record, Segment,
    mark::{Gone, GoneReason, Message, Reference},
    simulation::{Log, fold, name, open},
};

fn native() -> NativeDefaults {
    NativeDefaults {
        content_type: ContentType::parse("text/plain").unwrap(),
        visibility: Visibility::Public,
        incarnation: 8,
    }
}

fn state_of(kinds: Vec<Kind>) -> StreamState {
    let at = |(kind, seq)| Entry { stamp: None, kind }.encode(Bytes::new()).at(seq, 1_000);
    let records: Vec<Record> = kinds.into_iter().zip(0..).map(at).collect();
    fold(StreamState::default(), &records).unwrap()
}

fn existing(open: Open) -> StreamState {
    state_of(vec![Kind::Fence("o.0000000000000007".to_owned()), Kind::Open(Box::new(open))])
}

fn declared() -> DeclaredConfig {
    DeclaredConfig { content_type: None, lifetime: None, closed: false, visibility: None, fork: None }
}

fn text() -> ContentType {
    ContentType::parse("text/plain").unwrap()
}

const TTL: Lifetime = Lifetime::Ttl { seconds: 60 };

#[test]
fn nothing_is_in_the_way_where_no_life_is() {
    let gone = Kind::Gone(Gone { reason: GoneReason::Deleted });
    let begun = vec![Kind::Fence("o.0000000000000007".to_owned()), Kind::Open(Box::new(open(7)))];
    let reference = Kind::Ref(Reference { incarnation: 1, fork: name("fork") });
    let deleted = state_of([begun.clone(), vec![gone.clone()]].concat());
    let kept = state_of([begun, vec![reference, gone]].concat());
    let fenced = state_of(vec![Kind::Fence("leader".to_owned())]);
    for (state, outcome) in [
        (StreamState::default(), None),
        (deleted, None),
        (kept, Some(CreateOutcome::Conflict(ConfigField::SoftDeleted))),
        (fenced, Some(CreateOutcome::Refused(Refusal::Fenced))),
    ] {
        assert_eq!(decide_existing(&state, &declared(), &native()), outcome);
    }
}

#[test]
fn what_nobody_has_said_of_who_may_see_a_stream_is_as_whoever_serves_it_says() {
    let (public, private) = (Visibility::Public, Visibility::Private);
    for (said, serves, is) in [
        (None, public, public),
        (None, private, private),
        (Some(public), private, public),
        (Some(private), public, private),
    ] {
        let state = existing(Open { visibility: said, ..open(7) });
        let native = NativeDefaults { visibility: serves, ..native() };
        let decide = |visibility| decide_existing(&state, &DeclaredConfig { visibility, ..declared() }, &native);
        assert_eq!(decide(None), Some(CreateOutcome::Exists));
        for wanted in [public, private] {
            let outcome =
                if wanted == is { CreateOutcome::Exists } else { CreateOutcome::Conflict(ConfigField::Visibility) };
            assert_eq!(decide(Some(wanted)), Some(outcome), "{said:?} {serves:?} {wanted:?}");
        }
    }
}

#[test]
fn what_exists_is_compared_field_by_field() {
    let conflict = |field| Some(CreateOutcome::Conflict(field));
    let exists = Some(CreateOutcome::Exists);
    let plain = existing(open(7));
    let lasting = existing(Open { lifetime: TTL, content_type: text(), ..open(7) });
    let hidden = existing(Open { visibility: Some(Visibility::Private), ..open(7) });
    let charset = ContentType::parse("TEXT/plain; charset=utf-8").unwrap();
    let same = DeclaredConfig { lifetime: Some(TTL), content_type: Some(charset), ..declared() };
    for (state, declared, outcome) in [
        (&plain, declared(), exists.clone()),
        (&plain, DeclaredConfig { lifetime: Some(Lifetime::Forever), ..declared() }, exists.clone()),
        (&plain, DeclaredConfig { content_type: Some(text()), ..same.clone() }, conflict(ConfigField::ContentType)),
        (&plain, DeclaredConfig { lifetime: Some(TTL), ..declared() }, conflict(ConfigField::Lifetime)),
        (&plain, DeclaredConfig { closed: true, ..declared() }, conflict(ConfigField::Closed)),
        (&plain, DeclaredConfig { visibility: Some(Visibility::Public), ..declared() }, exists.clone()),
        (
            &plain,
            DeclaredConfig { visibility: Some(Visibility::Private), ..declared() },
            conflict(ConfigField::Visibility),
        ),
        (&hidden, declared(), exists.clone()),
        (&hidden, DeclaredConfig { visibility: Some(Visibility::Private), ..declared() }, exists.clone()),
        (
            &hidden,
            DeclaredConfig { visibility: Some(Visibility::Public), ..declared() },
            conflict(ConfigField::Visibility),
        ),
        (&lasting, same.clone(), exists),
        (&lasting, DeclaredConfig { content_type: None, ..same.clone() }, conflict(ConfigField::ContentType)),
        (&lasting, DeclaredConfig { lifetime: None, ..same.clone() }, conflict(ConfigField::Lifetime)),
        (&lasting, DeclaredConfig { fork: Some(declared_fork()), ..same }, conflict(ConfigField::Fork)),
    ] {
        assert_eq!(decide_existing(state, &declared, &native()), outcome, "{declared:?}");
    }
}

#[test]
fn a_closed_stream_exists_only_for_who_asks_for_a_closed_one() {
    let close = Kind::Close(Close { by: None });
    let fence = Kind::Fence("c.0000000000000007".to_owned());
    let state = state_of(vec![fence, Kind::Open(Box::new(open(7))), close]);
    for (closed, outcome) in [(true, CreateOutcome::Exists), (false, CreateOutcome::Conflict(ConfigField::Closed))] {
        let declared = DeclaredConfig { closed, ..declared() };
        assert_eq!(decide_existing(&state, &declared, &native()), Some(outcome));
    }
}

fn fork_point() -> Offset {
    Offset { birth: 500, seq: 9 }
}

fn declared_fork() -> DeclaredFork {
    DeclaredFork { source: name("source"), at: Some(fork_point()), sub_offset: 2 }
}

#[test]
fn a_fork_matches_by_source_and_place_and_inherits_what_it_does_not_say() {
    let segment = Segment { birth: 500, source: Some(name("source")), from: 2, to: 9 };
    let fork = Fork { source: name("source"), incarnation: 1, at: fork_point(), sub_offset: 2, chain: vec![segment] };
    let state = existing(Open { fork: Some(fork), lifetime: TTL, content_type: text(), ..open(7) });
    let conflict = |field| CreateOutcome::Conflict(field);
    let forked = |fork| DeclaredConfig { fork: Some(fork), ..declared() };
    let elsewhere = Offset { seq: 8, ..fork_point() };
    for (declared, outcome) in [
        (forked(declared_fork()), CreateOutcome::Exists),
        (forked(DeclaredFork { at: None, ..declared_fork() }), CreateOutcome::Exists),
        (forked(DeclaredFork { at: Some(elsewhere), ..declared_fork() }), conflict(ConfigField::Fork)),
        (forked(DeclaredFork { sub_offset: 0, ..declared_fork() }), conflict(ConfigField::Fork)),
        (forked(DeclaredFork { source: name("other"), ..declared_fork() }), conflict(ConfigField::Fork)),
        (
            DeclaredConfig { lifetime: Some(Lifetime::Forever), ..forked(declared_fork()) },
            conflict(ConfigField::Lifetime),
        ),
        (DeclaredConfig { content_type: Some(text()), lifetime: Some(TTL), ..declared() }, conflict(ConfigField::Fork)),
    ] {
        assert_eq!(decide_existing(&state, &declared, &native()), Some(outcome), "{declared:?}");
    }
}

#[test]
fn a_native_stream_exists_with_the_configuration_of_its_project() {
    let state = state_of(vec![Kind::Message(Message::default())]);
    let conflict = |field| CreateOutcome::Conflict(field);
    for (declared, outcome) in [
        (declared(), CreateOutcome::Exists),
        (
            DeclaredConfig { content_type: Some(text()), lifetime: Some(Lifetime::Forever), ..declared() },
            CreateOutcome::Exists,
        ),
        (
            DeclaredConfig { content_type: Some(ContentType::default_binary()), ..declared() },
            conflict(ConfigField::ContentType),
        ),
        (DeclaredConfig { lifetime: Some(TTL), ..declared() }, conflict(ConfigField::Lifetime)),
        (DeclaredConfig { fork: Some(declared_fork()), ..declared() }, conflict(ConfigField::Fork)),
        (DeclaredConfig { closed: true, ..declared() }, conflict(ConfigField::Closed)),
    ] {
        assert_eq!(decide_existing(&state, &declared, &native()), Some(outcome), "{declared:?}");
    }
}

#[test]
fn a_creation_is_one_batch_that_a_second_one_loses_against() {
    let batch = BatchId { writer: 1, counter: 1 };
    let bodies = |count| Content::Messages(vec![Bytes::from_static(b"m"); count]);
    let pieces = Content::Pieces { body: 1, pieces: vec![0, 1], bytes: 9 };
    for (content, closed, end, records) in [
        (bodies(0), false, None, 2),
        (bodies(3), false, Some(5), 5),
        (bodies(0), true, None, 3),
        (bodies(3), true, Some(5), 6),
        (pieces, true, Some(3), 4),
    ] {
        let request = CreateRequest { open: open(7), content, closed };
        let state = StreamState::default();
        let (plan, messages_end) = plan_create(&state, &request, batch);
        assert_eq!((plan.records.len(), messages_end, plan.condition), (records, end, Condition::TokenAndPosition));
        let last = Entry::decode(&plan.records[records - 1].clone().at(0, 0)).unwrap();
        assert_eq!(last.stamp.map(|stamp| (stamp.batch, stamp.checkpoint)), Some((batch, None)));

        let mut log = Log::default();
        assert_eq!(log.land(&state, &plan), Some(0));
        assert_eq!(log.land(&state, &plan), None);
        let created = log.fold_to(log.tail());
        assert_eq!(created.incarnation().unwrap().closed.is_some(), closed);
        assert_eq!(created.tail_offset().seq, end.unwrap_or(2) as u64);
        assert_eq!(created.token(), &Token::ours(if closed { Phase::Closed } else { Phase::Open }, 7));
    }
}

#[test]
fn the_largest_first_content_fits_beside_the_largest_open() {
    let longest = |n: usize| StreamName { project: Arc::from("p".repeat(64)), stream: Arc::from(format!("{n:0>400}")) };
    let segment = |n| Segment { birth: u64::MAX - 1, source: Some(longest(n)), from: u64::MAX, to: u64::MAX };
    let at = Offset { birth: u64::MAX, seq: u64::MAX };
    let chain = (0..MAX_FORK_DEPTH).map(segment).collect();
    let fork = Fork { source: longest(0), incarnation: 1, at, sub_offset: u64::MAX, chain };
    let content_type = ContentType::parse(&format!("text/{}", "x".repeat(251))).unwrap();
    let open = Open { fork: Some(fork), content_type, ..open(7) };
    let heavy = Content::Messages(vec![Bytes::from(vec![0; MAX_BATCH_BYTES - BATCH_RESERVE - 8])]);
    let many = Content::Messages(vec![Bytes::from(vec![0; 1_000]); 992]);
    for content in [heavy, many] {
        assert!(content.fits_a_batch());
        let request = CreateRequest { open: open.clone(), content, closed: true };
        let (plan, _) = plan_create(&StreamState::default(), &request, BatchId { writer: 1, counter: u64::MAX });
        assert_eq!(Log::default().append(&plan.records, None, None), Some(0));
    }
}

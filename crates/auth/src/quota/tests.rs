use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::key::KeyPrint;

fn id(text: &str) -> ProjectId {
    ProjectId::parse(text).unwrap()
}

fn policy(quota: u64, window: u32) -> Option<Policy> {
    Some(Policy { quota: NonZeroU64::new(quota)?, window: NonZeroU32::new(window)? })
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn principal(n: u64) -> Principal {
    Principal::Token((u128::from(n) << 64 | 7).to_be_bytes())
}

fn followed(streams: u64) -> Allowance {
    Allowance { streams: NonZeroU64::new(streams), ..Allowance::default() }
}

impl Meter {
    /// Whether no place is held, by whom it may be.
    fn is_unused(&self, project: &ProjectId) -> bool {
        let book = &self.projects[project];
        let all = [&book.tokens, &book.addresses]
            .into_iter()
            .flat_map(|crowd| crowd.principals.values().chain([&crowd.newcomers]));
        all.chain([&book.own]).all(Account::is_unused)
    }
}

/// 10 requests in 10 s for each, 25 for all.
fn requests() -> Quotas {
    Quotas {
        project: Allowance { requests: policy(25, 10), ..Allowance::default() },
        principal: Allowance { requests: policy(10, 10), ..Allowance::default() },
    }
}

const REQUEST: Cost = Cost { requests: 1, bytes: 0, connections: 0 };

/// How many of so many requests are let in.
fn let_in(meter: &mut Meter, asker: &Asker<'_>, count: usize, now: Duration) -> usize {
    (0..count).filter(|_| meter.charge(asker, REQUEST, now).is_ok()).count()
}

#[test]
fn each_has_its_own_quota_and_all_have_the_projects() {
    let (mut meter, quotas, chat, other) = (Meter::default(), requests(), id("chat"), id("other"));
    let who = |project, n| Asker { project, principal: principal(n), quotas: &quotas };
    let had: Vec<_> = (0..4).map(|n| let_in(&mut meter, &who(&chat, n), 12, at(0))).collect();
    assert_eq!(had, [10, 10, 5, 0]);
    assert_eq!(let_in(&mut meter, &who(&other, 0), 12, at(0)), 10, "another project's is another's");
    // Who was refused for the project's sake has lost nothing of its own.
    assert_eq!(let_in(&mut meter, &who(&chat, 3), 12, at(10)), 10);
}

#[test]
fn who_is_refused_is_told_when_to_come_and_is_let_in_then() {
    let (mut meter, quotas, chat) = (Meter::default(), requests(), id("chat"));
    let asker = Asker { project: &chat, principal: principal(1), quotas: &quotas };
    assert_eq!(let_in(&mut meter, &asker, 10, at(0)), 10);
    let exceeded = meter.charge(&asker, REQUEST, at(0)).unwrap_err();
    assert_eq!((exceeded.left.name(), exceeded.wait), ("requests", Some(at(1))));
    assert_eq!(exceeded.to_string(), "the quota `requests` is used up");
    assert_eq!(exceeded.retry_after(at(10), 0.0), 1);
    assert_eq!(exceeded.retry_after(at(10), 1.0), 11);
    assert_eq!(exceeded.retry_after(at(10), 77.0), 11);
    let fields = Fields::of(&meter.left(&asker, at(0)), Some(&exceeded)).unwrap();
    assert_eq!(fields.policy, "\"requests\";q=10;w=10");
    assert_eq!(fields.limit, "\"requests\";r=0;t=1");
    for _ in 0..50 {
        assert!(meter.charge(&asker, REQUEST, at(0)).is_err(), "asking does not make it longer");
    }
    assert!(meter.charge(&asker, REQUEST, at(1)).is_ok());
}

#[test]
fn the_fields_say_what_is_left_to_the_asker_and_nothing_of_the_others() {
    let all = Allowance {
        requests: policy(100, 60),
        bytes: policy(1 << 62, 3600),
        connections: policy(5, 1),
        readers: NonZeroU64::new(3),
        streams: None,
    };
    let (mut meter, chat) = (Meter::default(), id("chat"));
    let quotas = Quotas { project: Allowance { requests: policy(2, 60), ..Allowance::default() }, principal: all };
    let asker = Asker { project: &chat, principal: principal(1), quotas: &quotas };
    meter.charge(&asker, Cost { requests: 1, bytes: 1000, connections: 1 }, at(0)).unwrap();
    let held = meter.hold(&asker, "s", at(0)).unwrap();
    let fields = Fields::of(&meter.left(&asker, at(0)), None).unwrap();
    assert_eq!(
        fields.policy,
        "\"requests\";q=100;w=60, \"bytes\";q=999999999999999;qu=\"content-bytes\";w=3600, \"connections\";q=5;w=1, \
         \"readers\";q=3;qu=\"concurrent-requests\""
    );
    assert_eq!(
        fields.limit,
        "\"requests\";r=99;t=60, \"bytes\";r=999999999999999;t=3600, \"connections\";r=4;t=1, \"readers\";r=2"
    );
    meter.release(held);
    meter.charge(&asker, REQUEST, at(0)).unwrap();
    let exceeded = meter.charge(&asker, REQUEST, at(0)).unwrap_err();
    let fields = Fields::of(&meter.left(&asker, at(0)), Some(&exceeded)).unwrap();
    assert!(fields.policy.ends_with("\"project-requests\";q=2;w=60"), "{fields:?}");
    assert!(fields.limit.ends_with("\"project-requests\";r=0;t=30"), "{fields:?}");
    assert_eq!(Fields::of(&[], None), None);
}

#[test]
fn retry_after_is_never_before_the_end_of_the_window_beside_it() {
    for nanos in [1, 999_999_999, 1_000_000_000, 1_000_000_001, 90_000_000_000] {
        let left = Left { holder: Holder::Principal, metered: Metered::Bytes, quota: 9, window: Some(9), available: 3 };
        let exceeded = Exceeded { left, wait: Some(Duration::from_nanos(nanos)) };
        let fields = Fields::of(&[left], Some(&exceeded)).unwrap();
        let t: u64 = fields.limit.rsplit_once("t=").unwrap().1.parse().unwrap();
        assert!(
            exceeded.retry_after(Duration::ZERO, 0.5) >= t && Duration::from_secs(t) >= Duration::from_nanos(nanos)
        );
    }
}

#[test]
fn bytes_that_were_not_known_beforehand_are_owed() {
    let bytes = Allowance { bytes: policy(100, 10), ..Allowance::default() };
    let quotas = Quotas { principal: bytes, ..Quotas::default() };
    let (mut meter, chat) = (Meter::default(), id("chat"));
    let asker = Asker { project: &chat, principal: principal(1), quotas: &quotas };
    meter.owe(&asker, Cost { bytes: 300, ..Cost::default() }, at(0));
    let one = Cost { requests: 1, bytes: 1, connections: 0 };
    assert_eq!(meter.charge(&asker, one, at(0)).unwrap_err().wait, Some(Duration::from_millis(20_100)));
    assert!(meter.charge(&asker, REQUEST, at(0)).is_ok(), "a request without a body is not one for bytes");
    assert!(meter.charge(&asker, one, at(21)).is_ok());
}

#[test]
fn what_is_owed_or_asked_under_old_quotas_puts_none_of_them_back_in_force() {
    let (requests, bytes) = (policy(10, 1000), policy(1000, 1000));
    let old = Quotas { principal: Allowance { bytes, ..Allowance::default() }, ..Quotas::default() };
    let tight = Allowance { requests, bytes: policy(100, 1000), ..Allowance::default() };
    let new = Quotas { project: Allowance { requests, ..Allowance::default() }, principal: tight };
    let (mut meter, chat) = (Meter::default(), id("chat"));
    let under = |quotas| Asker { project: &chat, principal: principal(1), quotas };
    let left = |meter: &mut Meter, quotas| -> Vec<_> {
        let left = meter.left(&under(quotas), at(0));
        left.iter().map(|left| (left.metered, left.quota, left.available)).collect()
    };
    let cost = Cost { requests: 1, bytes: 10, connections: 0 };
    meter.charge(&under(&old), cost, at(0)).unwrap();
    meter.charge(&under(&new), cost, at(0)).unwrap();
    let in_force = [(Metered::Requests, 10, 9), (Metered::Bytes, 100, 90)];
    assert_eq!(left(&mut meter, &new), in_force);
    meter.owe(&under(&old), Cost { bytes: 30, ..Cost::default() }, at(0));
    assert_eq!(left(&mut meter, &old), [(Metered::Bytes, 100, 60)], "it is told of those in force");
    assert_eq!(left(&mut meter, &new), [(Metered::Requests, 10, 9), (Metered::Bytes, 100, 60)]);
    // Nor does an answer from when nobody was told apart.
    let older = Quotas { project: old.principal, ..Quotas::default() };
    meter.owe(&under(&older), Cost { bytes: 60, ..Cost::default() }, at(0));
    assert_eq!(let_in(&mut meter, &under(&new), 20, at(0)), 9);
    assert_eq!(left(&mut meter, &new), [(Metered::Requests, 10, 0), (Metered::Bytes, 100, 0)]);
}

#[test]
fn places_are_given_back_to_whom_they_were_taken_from() {
    let few = |n| Allowance { readers: NonZeroU64::new(n), ..Allowance::default() };
    let quotas = Quotas { project: few(3), principal: few(2) };
    let (mut meter, chat) = (Meter::default(), id("chat"));
    let who = |n| Asker { project: &chat, principal: principal(n), quotas: &quotas };
    let first = meter.hold(&who(1), "s", at(0)).unwrap();
    let second = meter.hold(&who(1), "s", at(0)).unwrap();
    let exceeded = meter.hold(&who(1), "s", at(0)).unwrap_err();
    assert_eq!((exceeded.left.name(), exceeded.wait, exceeded.retry_after(at(0), 0.0)), ("readers", None, 5));
    let third = meter.hold(&who(2), "s", at(0)).unwrap();
    assert_eq!(meter.hold(&who(2), "s", at(0)).unwrap_err().left.name(), "project-readers");
    assert_eq!(meter.readers(&chat), 3);
    meter.release(first);
    let fourth = meter.hold(&who(2), "s", at(0)).unwrap();
    for held in [second, third, fourth] {
        meter.release(held);
    }
    assert_eq!(meter.readers(&chat), 0);
}

#[test]
fn what_was_held_before_there_was_a_limit_is_not_given_back_under_it() {
    let (mut meter, chat, none) = (Meter::default(), id("chat"), Quotas::default());
    let before = meter.hold(&Asker { project: &chat, principal: principal(1), quotas: &none }, "s", at(0));
    let readers = Allowance { readers: NonZeroU64::new(1), ..Allowance::default() };
    let quotas = Quotas { principal: readers, ..Quotas::default() };
    let asker = Asker { project: &chat, principal: principal(1), quotas: &quotas };
    let _held = meter.hold(&asker, "s", at(0)).unwrap();
    meter.release(before.unwrap());
    assert_eq!(meter.readers(&chat), 1);
    assert!(meter.hold(&asker, "s", at(0)).is_err());
}

#[test]
fn where_only_the_project_is_limited_its_principals_are_not_remembered() {
    let quotas = Quotas { principal: Allowance::default(), ..requests() };
    let (mut meter, chat) = (Meter::default(), id("chat"));
    let had: usize = (0..40)
        .map(|n| let_in(&mut meter, &Asker { project: &chat, principal: principal(n), quotas: &quotas }, 1, at(0)))
        .sum();
    assert_eq!((had, meter.principals()), (25, 0));
}

#[test]
fn where_nothing_is_limited_nothing_is_remembered() {
    let (mut meter, chat, none) = (Meter::default(), id("chat"), Quotas::default());
    let asker = Asker { project: &chat, principal: principal(1), quotas: &none };
    assert_eq!(let_in(&mut meter, &asker, 1000, at(0)), 1000);
    assert!(meter.projects.is_empty() && meter.left(&asker, at(0)).is_empty());
}

#[test]
fn nobody_escapes_a_limit_by_making_others_up() {
    let principals = Allowance { requests: policy(10, 100), ..Allowance::default() };
    let quotas = Quotas { principal: principals, ..Quotas::default() };
    let (mut meter, chat) = (Meter::default(), id("chat"));
    let who = |n| Asker { project: &chat, principal: principal(n), quotas: &quotas };
    assert_eq!(let_in(&mut meter, &who(0), 20, at(0)), 10);
    let made_up = 3 * MAX_PRINCIPALS_PER_PROJECT as u64;
    let had: usize = (1..made_up).map(|n| let_in(&mut meter, &who(n), 1, at(1))).sum();
    assert_eq!(had, MAX_PRINCIPALS_PER_PROJECT - 1 + 10, "all that came too late have had what one may have");
    assert_eq!(let_in(&mut meter, &who(0), 20, at(2)), 0, "it is remembered still");
    assert_eq!(meter.principals(), MAX_PRINCIPALS_PER_PROJECT);
    // When what they took has come back, they are as good as new, and make place.
    assert_eq!(let_in(&mut meter, &who(made_up), 20, at(12)), 10, "a newcomer of its own");
    assert_eq!(let_in(&mut meter, &who(0), 20, at(12)), 1, "what has come back in 12 s");
    assert!(meter.principals() < 100, "{} left", meter.principals());
}

#[test]
fn whoever_holds_a_place_is_not_forgotten() {
    let readers = Allowance { readers: NonZeroU64::new(1), ..Allowance::default() };
    let quotas = Quotas { principal: readers, ..Quotas::default() };
    let (mut meter, chat) = (Meter::default(), id("chat"));
    let who = |n| Asker { project: &chat, principal: principal(n), quotas: &quotas };
    let held = meter.hold(&who(0), "s", at(0)).unwrap();
    for n in 1..2 * MAX_PRINCIPALS_PER_PROJECT as u64 {
        assert!(meter.charge(&who(n), REQUEST, at(n)).is_ok());
    }
    assert!(meter.hold(&who(0), "s", at(9999)).is_err());
    meter.release(held);
    assert!(meter.hold(&who(0), "s", at(9999)).is_ok());
}

#[test]
fn the_table_of_all_projects_is_bounded_too() {
    let principals = Allowance { requests: policy(1, 1000), ..Allowance::default() };
    let quotas = Quotas { principal: principals, ..Quotas::default() };
    let mut meter = Meter::default();
    let projects: Vec<_> = (0..20).map(|n| id(&format!("p{n}"))).collect();
    for (n, project) in (0..MAX_PRINCIPALS_PER_PROJECT as u64).flat_map(|n| projects.iter().map(move |p| (n, p))) {
        assert!(meter.principals() <= MAX_PRINCIPALS);
        let asker = Asker { project, principal: principal(n), quotas: &quotas };
        let _ = meter.charge(&asker, REQUEST, at(0));
    }
    assert_eq!(meter.principals(), MAX_PRINCIPALS);
    let own = id("late");
    for n in 0..ASSURED_PRINCIPALS as u64 {
        let asker = Asker { project: &own, principal: principal(1_000_000 + n), quotas: &quotas };
        assert_eq!(let_in(&mut meter, &asker, 2, at(1)), 1, "a place of its own for number {n}");
    }
    assert_eq!(meter.principals(), MAX_PRINCIPALS + ASSURED_PRINCIPALS);
    let late = principal(0);
    let asker = Asker { project: &own, principal: late, quotas: &quotas };
    let _ = meter.charge(&asker, REQUEST, at(1));
    assert!(!meter.projects[&own].tokens.principals.contains_key(&late), "there is no place for it");
    // Those of the others are as good as new by then, though nobody asks for their projects any more.
    meter.charge(&asker, REQUEST, at(2000)).unwrap();
    assert!(meter.projects[&own].tokens.principals.contains_key(&late) && meter.principals() == 1);
    for n in 0..5 {
        let _ =
            meter.charge(&Asker { project: &projects[0], principal: principal(n), quotas: &quotas }, REQUEST, at(2000));
    }
    meter.retain(|project| project.as_str() == "p0");
    assert_eq!((meter.projects.len(), meter.principals()), (1, 5));
}

#[test]
fn addresses_take_no_place_from_tokens() {
    let principals = Allowance { requests: policy(2, 1000), ..Allowance::default() };
    let quotas = Quotas { principal: principals, ..Quotas::default() };
    let (mut meter, chat) = (Meter::default(), id("chat"));
    let who = |principal| Asker { project: &chat, principal, quotas: &quotas };
    for n in 0..MAX_PRINCIPALS_PER_PROJECT as u64 + 10 {
        assert_eq!(let_in(&mut meter, &who(Principal::of_address(&n.to_be_bytes())), 2, at(0)) > 0, n < 4097, "{n}");
    }
    assert_eq!(let_in(&mut meter, &who(Principal::of_token_id("a")), 3, at(0)), 2);
    assert_eq!(let_in(&mut meter, &who(Principal::of_token_id("b")), 3, at(0)), 2, "each of its own");
}

#[test]
fn a_stream_is_counted_once_whoever_follows_it() {
    let quotas = Quotas { project: followed(2), ..Quotas::default() };
    let (mut meter, chat) = (Meter::default(), id("chat"));
    let who = |n| Asker { project: &chat, principal: principal(n), quotas: &quotas };
    let mut held: Vec<_> =
        [(1, "a"), (2, "a"), (1, "b"), (3, "a")].map(|(n, stream)| meter.hold(&who(n), stream, at(0)).unwrap()).into();
    let exceeded = meter.hold(&who(1), "c", at(0)).unwrap_err();
    assert_eq!((exceeded.left.name(), exceeded.wait, exceeded.left.quota), ("project-streams", None, 2));
    meter.release(held.remove(0));
    assert!(meter.hold(&who(1), "c", at(0)).is_err(), "others follow it still");
    meter.release(held.remove(1));
    held.push(meter.hold(&who(1), "c", at(0)).unwrap());
    for held in held {
        meter.release(held);
    }
    assert!(meter.is_unused(&chat));
}

#[test]
fn a_principal_follows_so_many_streams_whatever_others_do() {
    let quotas = Quotas { project: followed(3), principal: followed(2) };
    let (mut meter, chat) = (Meter::default(), id("chat"));
    let who = |n| Asker { project: &chat, principal: principal(n), quotas: &quotas };
    let mut held: Vec<_> =
        [(1, "a"), (1, "a"), (1, "b"), (2, "b")].map(|(n, stream)| meter.hold(&who(n), stream, at(0)).unwrap()).into();
    let exceeded = meter.hold(&who(1), "c", at(0)).unwrap_err();
    assert_eq!((exceeded.left.name(), exceeded.wait, exceeded.left.quota), ("streams", None, 2));
    held.push(meter.hold(&who(2), "c", at(0)).unwrap());
    assert_eq!(meter.hold(&who(3), "d", at(0)).unwrap_err().left.name(), "project-streams");
    held.push(meter.hold(&who(3), "b", at(0)).unwrap());
    meter.release(held.remove(0));
    assert!(meter.hold(&who(1), "c", at(0)).is_err(), "it has the one twice");
    meter.release(held.remove(0));
    held.push(meter.hold(&who(1), "c", at(0)).unwrap());
    for held in held {
        meter.release(held);
    }
    assert!(meter.is_unused(&chat));
}

#[test]
fn a_principal_is_a_tokens_id_or_what_its_key_has_signed_or_an_address() {
    assert_eq!(Principal::of_token_id("a"), Principal::of_token_id("a"));
    assert_eq!(
        Principal::of_token("h.p.one"),
        Principal::of_token("h.p.two"),
        "who spells a signature anew is the same"
    );
    let all = [
        Principal::of_token_id("a"),
        Principal::of_token_id("b"),
        Principal::of_token("a"),
        Principal::of_token("h.p.s"),
        Principal::of_token("h.q.s"),
        Principal::of_address(b"a"),
        Principal::of_issue(KeyPrint([1; 8]), Some(1)),
        Principal::of_issue(KeyPrint([1; 8]), Some(2)),
        Principal::of_issue(KeyPrint([2; 8]), Some(1)),
        Principal::of_issue(KeyPrint([2; 8]), None),
    ];
    assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len());
}

proptest! {
    /// However it is asked for, nobody has more at a time than they may, and in the end nothing is held.
    #[test]
    fn places_are_counted_right(asked in prop::collection::vec((0..3_u64, any::<bool>()), 0..80)) {
        let few = |n| Allowance { readers: NonZeroU64::new(n), ..Allowance::default() };
        let quotas = Quotas { project: few(4), principal: few(2) };
        let (mut meter, chat) = (Meter::default(), id("chat"));
        let mut held: Vec<(u64, Held)> = Vec::new();
        for (who, takes) in asked {
            if takes {
                let asker = Asker { project: &chat, principal: principal(who), quotas: &quotas };
                let own = held.iter().filter(|(other, _)| *other == who).count();
                let taken = meter.hold(&asker, "s", at(0));
                prop_assert_eq!(taken.is_ok(), own < 2 && held.len() < 4);
                held.extend(taken.map(|taken| (who, taken)));
            } else if let Some((_, given)) = held.pop() {
                meter.release(given);
            }
            prop_assert_eq!(meter.readers(&chat), held.len() as u64);
        }
    }
}

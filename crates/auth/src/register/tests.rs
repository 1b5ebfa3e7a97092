use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::{jwks::JwksUrl, key::KeyPrint, token::claims::MAX_TOKEN_ID};

const NOW: u64 = 1_800_000_000;

fn id(text: &str) -> ProjectId {
    ProjectId::parse(text).unwrap()
}

fn revoke(project: &str, token: &str, expires_at: Option<u64>) -> Record {
    Record::RevokeToken { project: id(project), id: token.to_owned(), expires_at }
}

fn older(project: &str, before: u64) -> Record {
    Record::RevokeOlder { project: id(project), before }
}

fn document(project: &str, rest: &str) -> Zeroizing<String> {
    let key = "[[project.key]]\nid = 'a'\nalgorithm = 'HS256'\nsecret = 'the secret of a project: thirty-two bytes'";
    Zeroizing::new(format!("[[project]]\nid = '{project}'\n{rest}\n{key}\n"))
}

fn put(project: &str, rest: &str) -> Record {
    Record::put(document(project, rest)).unwrap()
}

fn remove(project: &str) -> Record {
    Record::RemoveProject { project: id(project) }
}

/// Folds these from the start, each at its time.
fn folded<'r>(records: impl IntoIterator<Item = (u64, &'r Record)>) -> Register {
    let mut register = Register::default();
    for (at, record) in records {
        register.apply(register.next(), at, &record.encode()).unwrap();
    }
    register
}

fn revoked(register: &Register, project: &str, token: &str, issued_at: u64) -> bool {
    register.is_revoked(&id(project), Some(token), Some(issued_at))
}

#[test]
fn a_token_is_revoked_by_its_id_in_its_project_alone() {
    let register = folded([(NOW, &revoke("chat", "one", Some(NOW + 60)))]);
    assert!(revoked(&register, "chat", "one", NOW - 1));
    assert!(revoked(&register, "chat", "one", NOW + 1), "whenever it says that it was issued");
    assert!(!revoked(&register, "chat", "two", NOW - 1));
    assert!(!revoked(&register, "other", "one", NOW - 1));
    assert!(!register.is_revoked(&id("chat"), None, None));
}

#[test]
fn all_that_was_issued_before_a_time_is_revoked_at_once() {
    let register = folded([(NOW, &older("chat", NOW - 10)), (NOW, &older("chat", NOW - 20))]);
    for (issued, gone) in [(Some(NOW - 11), true), (Some(NOW - 10), false), (Some(0), true), (None, true)] {
        assert_eq!(register.is_revoked(&id("chat"), None, issued), gone, "{issued:?}");
        assert_eq!(register.is_revoked(&id("chat"), Some("any"), issued), gone, "{issued:?}");
    }
    assert!(!revoked(&register, "other", "any", 0));
    let grant = Grant {
        project: id("chat"),
        scopes: crate::Scopes::default(),
        streams: crate::Streams::All,
        expires_at: NOW + 60,
        not_before: None,
        issued_at: Some(NOW - 11),
        key: KeyPrint([0; 8]),
        id: None,
    };
    assert!(register.revokes(&grant) && !register.revokes(&Grant { issued_at: Some(NOW), ..grant }));
}

#[test]
fn a_time_in_the_future_does_not_lock_a_project_for_ever() {
    let register = folded([(NOW, &older("chat", u64::MAX))]);
    assert!(revoked(&register, "chat", "x", NOW + CLOCKS_AHEAD - 1));
    assert!(!revoked(&register, "chat", "x", NOW + CLOCKS_AHEAD));
}

#[test]
fn what_was_revoked_is_forgotten_when_it_cannot_count_any_more() {
    let (first, end) = (revoke("chat", "one", Some(NOW)), NOW + KEPT_AFTER_EXPIRY);
    let forever = revoke("chat", "two", None);
    let later = |at| folded([(NOW, &first), (NOW, &forever), (at, &older("other", 1))]);
    assert!(revoked(&later(end - 60), "chat", "one", NOW));
    let forgotten = later(end + 60);
    assert!(!revoked(&forgotten, "chat", "one", NOW) && revoked(&forgotten, "chat", "two", NOW));
    assert_eq!(forgotten.listed, 1);
    let twice = [(NOW, &first), (NOW, &revoke("chat", "one", Some(NOW + 9000))), (NOW, &first), (end + 60, &forever)];
    assert!(revoked(&folded(twice), "chat", "one", NOW), "the latest end counts");
}

#[test]
fn a_clock_that_goes_back_brings_nothing_back() {
    let register = folded([(NOW, &revoke("chat", "one", Some(NOW))), (1, &older("chat", 5))]);
    assert!(revoked(&register, "chat", "one", NOW));
    assert_eq!(register.state.now, NOW);
}

#[test]
fn one_more_than_can_be_listed_revokes_all_of_the_project_and_of_no_other() {
    let listed: Vec<_> = (0..MAX_LISTED_PER_PROJECT).map(|n| revoke("chat", &n.to_string(), None)).collect();
    let mut register = folded(listed.iter().map(|record| (NOW, record)));
    let more = revoke("chat", "more", None);
    assert_eq!(register.check(&more), Err(Unfit::Tokens));
    assert_eq!(register.check(&revoke("other", "more", None)), Ok(()));
    assert!(!revoked(&register, "chat", "another", NOW));
    register.apply(register.next(), NOW, &more.encode()).unwrap();
    assert!(revoked(&register, "chat", "more", NOW) && revoked(&register, "chat", "another", NOW));
    assert!(!revoked(&register, "chat", "another", NOW + CLOCKS_AHEAD), "what comes later is not touched");
    assert!(revoked(&register, "chat", "17", NOW + CLOCKS_AHEAD), "what is listed stays");
    assert!(!revoked(&register, "other", "another", 0));
}

#[test]
fn projects_without_room_are_covered_by_what_covers_all() {
    let rows: Vec<_> = (0..MAX_ROWS as u64).map(|n| older(&format!("p{n}"), 1000 + n)).collect();
    let mut register = folded(rows.iter().map(|record| (NOW, record)));
    assert_eq!(register.check(&older("late", 5000)), Err(Unfit::Rows));
    register.apply(register.next(), NOW, &older("late", 5000).encode()).unwrap();
    assert_eq!(register.state.revocations.len(), MAX_ROWS);
    assert!(revoked(&register, "late", "x", 4999) && !revoked(&register, "late", "x", 5000));
    // The one that was given up, and one that has never revoked anything.
    for project in ["p0", "innocent"] {
        assert!(revoked(&register, project, "x", 999) && !revoked(&register, project, "x", 1000), "{project}");
    }
    // Its first own revocation does not undo what counted for it before.
    register.apply(register.next(), NOW, &revoke("innocent", "one", None).encode()).unwrap();
    assert!(revoked(&register, "innocent", "x", 999) && revoked(&register, "innocent", "one", 1000));
    assert!(revoked(&register, "p7", "x", 1006) && !revoked(&register, "p7", "x", 1007));
}

#[test]
fn if_every_project_lists_tokens_the_next_revocation_counts_for_all_others() {
    let rows: Vec<_> = (0..MAX_ROWS).map(|n| revoke(&format!("p{n}"), "x", None)).collect();
    let mut register = folded(rows.iter().map(|record| (NOW, record)));
    register.apply(register.next(), NOW, &revoke("late", "one", None).encode()).unwrap();
    assert!(revoked(&register, "late", "one", NOW) && revoked(&register, "innocent", "any", NOW));
    assert!(!revoked(&register, "p1", "any", NOW) && revoked(&register, "p1", "x", NOW));
}

#[test]
fn a_project_comes_changes_and_goes() {
    let mut register = folded([(NOW, &put("chat", "")), (NOW, &put("chat", "origins = ['https://a.example']"))]);
    let in_force = register.in_force(Vec::new(), |_| false, |_| true).unwrap();
    let project = in_force.projects.get(&id("chat")).unwrap();
    assert_eq!(project.origins.share(Some(b"https://a.example")), crate::Sharing::This("https://a.example"));
    assert_eq!((in_force.set_aside.len(), register.documents().count()), (0, 1));
    register.apply(2, NOW, &remove("chat").encode()).unwrap();
    assert_eq!(register.in_force(Vec::new(), |_| false, |_| true).unwrap().projects.iter().count(), 0);
    register.apply(3, NOW, &put("chat", "").encode()).unwrap();
    assert!(revoked(&register, "chat", "x", NOW), "a token of the one that was removed");
    assert!(!revoked(&register, "chat", "x", NOW + 1));
    let before = register.clone();
    register.apply(4, NOW, &remove("unknown").encode()).unwrap();
    assert_eq!(register.state, before.state);
}

#[test]
fn files_are_above_the_register_and_no_project_hinders_another() {
    let records = [
        put("filed", ""),
        put("own", ""),
        put("settled", ""),
        put("placed", "basin = 'own-basin'"),
        put("thief", "basin = 'file-basin'"),
        put("away", "issuer = 'https://a.example'\n[project.jwks]\nurl = 'https://elsewhere.example:8443/keys'"),
        put("listed", "issuer = 'https://a.example'\n[project.jwks]\nurl = 'https://a.example/keys'"),
        Record::PutProject { project: id("broken"), document: SecretText(Zeroizing::new("a = 1".to_owned())) },
        Record::PutProject { project: id("liar"), document: SecretText(document("filed", "")) },
    ];
    let register = folded(records.iter().map(|record| (NOW, record)));
    let filed = projects_of(File { name: "f", bytes: document("filed", "basin = 'file-basin'").as_bytes() }).unwrap();
    // Whatever a file has settled counts for others than files.
    let is_settled = |project: &ProjectId| [id("filed"), id("settled")].contains(project);
    let is_listed = |url: &JwksUrl| url.host() != "elsewhere.example";
    let InForce { projects, set_aside } = register.in_force(filed, is_settled, is_listed).unwrap();
    let mut ids: Vec<_> = projects.iter().map(|project| project.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["filed", "listed", "own"]);
    assert!(projects.get(&id("filed")).unwrap().basin.is_some(), "the file's");
    let reasons: Vec<_> = set_aside.iter().map(|(id, reason)| (id.as_str(), reason)).collect();
    assert!(matches!(
        reasons[..],
        [
            ("away", SetAside::Issuer { authority }),
            ("broken", SetAside::Malformed(_)),
            ("filed", SetAside::File),
            ("liar", SetAside::Other),
            ("placed", SetAside::Basin),
            ("settled", SetAside::Settled),
            ("thief", SetAside::Basin)
        ] if authority == "elsewhere.example:8443"
    ));
}

#[test]
fn projects_that_come_and_go_for_ever_take_nothing_from_others() {
    let (mut register, mut at) = (folded([(NOW, &older("stays", NOW - 5))]), NOW);
    let apply = |register: &mut Register, at: u64, record: Record| {
        assert_eq!(register.check(&record), Ok(()), "{record:?}");
        register.apply(register.next(), at, &record.encode()).unwrap();
    };
    apply(&mut register, at, put("live", ""));
    for n in 0..3000 {
        at += 1;
        let project = format!("p{n}");
        apply(&mut register, at, put(&project, ""));
        apply(&mut register, at, revoke(&project, "x", None));
        apply(&mut register, at, remove(&project));
        // It goes on, however many have gone.
        assert!(revoked(&register, "stays", "any", NOW - 6) && !revoked(&register, "stays", "any", NOW - 5));
        assert!(!revoked(&register, "live", "any", 0) && !revoked(&register, "filed", "any", 0), "{n}");
    }
    assert_eq!((register.listed, register.state.revocations.len()), (0, MAX_ROWS));
    apply(&mut register, at, revoke("late", "one", None));
    assert!(revoked(&register, "late", "one", 0) && !revoked(&register, "late", "two", 0));
    // Whose row was given up, and whose was not: the same keys are open to no token of the one before.
    for (n, gone) in [(0, NOW + 1), (2999, NOW + 3000)] {
        let project = format!("p{n}");
        apply(&mut register, at, put(&project, ""));
        assert!(revoked(&register, &project, "x", gone), "{project}");
        assert!(!revoked(&register, &project, "y", at + 1), "{project}");
        apply(&mut register, at, put(&project, "cookie = 'a'"));
        assert!(revoked(&register, &project, "x", gone), "{project}: a change takes nothing back");
    }
}

#[test]
fn a_removal_without_room_counts_for_those_alone_that_are_put_later() {
    let rows: Vec<_> = (0..MAX_ROWS as u64).map(|n| older(&format!("p{n}"), 1000 + n)).collect();
    let (first, gone) = (put("chat", ""), remove("chat"));
    let mut register = folded([&first].into_iter().chain(&rows).chain([&gone]).map(|record| (NOW, record)));
    for (project, before) in [("p0", 1000), ("p7", 1007), ("innocent", 0)] {
        assert!(!revoked(&register, project, "x", before), "{project}");
        assert!(before == 0 || revoked(&register, project, "x", before - 1), "{project}");
    }
    assert_eq!(register.check(&put("chat", "")), Err(Unfit::Rows), "nothing could be said of its old tokens");
    register.apply(register.next(), NOW, &first.encode()).unwrap();
    assert!(revoked(&register, "chat", "x", NOW) && !revoked(&register, "chat", "x", NOW + 1), "said all the same");
}

#[test]
fn a_project_that_is_spoken_of_again_is_not_given_up_as_a_removed_one() {
    let again = [put("one", ""), remove("one"), older("one", 7), put("two", ""), remove("two"), put("two", "")];
    let register = folded(again.iter().map(|record| (NOW, record)));
    assert!(register.state.revocations.values().all(|row| !row.is_removed));
    assert!(folded([(NOW, &again[0]), (NOW, &again[1])]).state.revocations[&id("one")].is_removed);
}

#[test]
fn a_change_without_room_takes_the_project_away() {
    let filler = format!("audience = '{}'", "x".repeat(15 * 1024));
    let count = MAX_DOCUMENTS / document("p10", &filler).len();
    let fillers: Vec<_> = (10..10 + count).map(|n| put(&format!("p{n}"), &filler)).collect();
    let mut register = folded(fillers.iter().take(count - 1).map(|record| (NOW, record)));
    register.apply(register.next(), NOW, &put("small", "").encode()).unwrap();
    let grown = put("small", &filler);
    register.apply(register.next(), NOW, &fillers[count - 1].encode()).unwrap();
    let full = register.check(&grown);
    register.apply(register.next(), NOW, &grown.encode()).unwrap();
    assert_eq!(full, Err(Unfit::Projects));
    assert!(register.documents().all(|(project, _)| project.as_str() != "small"));
    let bytes: usize = register.documents().map(|(_, document)| document.0.len()).sum();
    assert_eq!(register.documents, bytes);
}

#[test]
fn only_a_document_of_one_project_is_put() {
    let two = Zeroizing::new(format!("{}\n{}", *document("a", ""), *document("b", "")));
    assert_eq!(Record::put(two).unwrap_err(), PutError::NotOne { found: 2 });
    assert_eq!(Record::put(Zeroizing::default()).unwrap_err(), PutError::NotOne { found: 0 });
    assert!(matches!(Record::put(Zeroizing::new("x = 1".to_owned())), Err(PutError::Document(_))));
    assert_eq!(Record::put(Zeroizing::new("#".repeat(MAX_DOCUMENT + 1))).unwrap_err(), PutError::TooLong);
}

#[test]
fn what_no_pod_could_read_is_not_fit_to_be_appended() {
    let register = Register::default();
    let document = |text: String| Record::PutProject { project: id("a"), document: SecretText(Zeroizing::new(text)) };
    for record in [
        revoke("a", "", None),
        revoke("a", &"x".repeat(MAX_TOKEN_ID + 1), None),
        document("#".repeat(MAX_DOCUMENT + 1)),
    ] {
        assert_eq!(register.check(&record), Err(Unfit::Malformed), "{record:?}");
        assert!(Record::decode(&record.encode()).is_err(), "{record:?}");
    }
    for record in [revoke("a", &"x".repeat(MAX_TOKEN_ID), None), older("a", 0), remove("a"), put("a", "")] {
        assert_eq!(register.check(&record), Ok(()), "{record:?}");
    }
}

#[test]
fn a_gap_is_an_error_and_what_comes_again_is_not() {
    let (one, two) = (revoke("chat", "one", None).encode(), revoke("chat", "two", None).encode());
    let mut register = Register::default();
    assert_eq!(register.apply(3, NOW, &one), Err(RegisterError::Start { position: 3 }));
    assert_eq!(register.pass(3), Err(RegisterError::Start { position: 3 }));
    assert_eq!(register.apply(0, NOW, &one), Ok(Applied::Now));
    assert_eq!(register.apply(0, NOW, &two), Ok(Applied::Before));
    assert_eq!(register.apply(2, NOW, &two), Err(RegisterError::Gap { expected: 1, found: 2 }));
    assert_eq!(register.pass(2), Err(RegisterError::Gap { expected: 1, found: 2 }));
    assert_eq!((register.pass(1), register.next()), (Ok(()), 2));
    assert!(!revoked(&register, "chat", "two", NOW));
    assert_eq!(register.apply(2, NOW, &two), Ok(Applied::Now));
}

#[test]
fn what_is_not_understood_is_refused_unless_it_says_that_it_may_be_skipped() {
    use RecordError::{Fields, Kind, Short, Version};
    let good = revoke("chat", "one", Some(NOW + 60)).encode();
    let with = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    let longer = [good.as_slice(), &[9]].concat();
    let next_version = [&[2][..], &good[1..], &[9]].concat();
    let fault = |source| Err(Fields { kind: 1, source });
    let table = [
        (good.clone(), Ok(true)),
        (next_version, Ok(true)),
        (with(1, 99), Err(Kind(99))),
        ([&with(1, 99)[..2], &[1], &good[3..]].concat(), Ok(false)),
        (vec![2, 99, 1], Ok(false)),
        (vec![3, 99, 1], Err(Version(3))),
        (vec![0, 1, 1], Err(Version(0))),
        (vec![1, 1], Err(Short)),
        (vec![], Err(Short)),
        (longer, fault(WireError::Trailing)),
        (good[..good.len() - 1].to_vec(), fault(WireError::Short)),
        (with(4, b'/'), fault(WireError::Value)),
        ([&good[..8], &[0, 0]].concat(), fault(WireError::Value)),
    ];
    for (bytes, expected) in table {
        assert_eq!(Record::decode(&bytes).map(|record| record.is_some()), expected, "{bytes:?}");
        let mut register = Register::default();
        let applied = register.apply(0, NOW, &bytes);
        match expected {
            Ok(known) => assert_eq!(applied, Ok(if known { Applied::Now } else { Applied::Skipped })),
            Err(source) => {
                assert_eq!(applied, Err(RegisterError::Record { position: 0, source }));
                assert_eq!(register, Register::default(), "nothing has changed");
            }
        }
    }
}

#[test]
fn bytes_of_this_version_stay_what_they_are() {
    let table: [(Record, &[u8]); 4] = [
        (revoke("chat", "one", Some(300)), b"\x01\x01\x00\x04chat\x03one\x01\xac\x02"),
        (revoke("chat", "one", None), b"\x01\x01\x00\x04chat\x03one\x00"),
        (older("chat", 300), b"\x01\x02\x00\x04chat\xac\x02"),
        (remove("chat"), b"\x01\x04\x00\x04chat"),
    ];
    for (record, bytes) in table {
        assert_eq!(record.encode(), bytes);
        assert_eq!(Record::decode(bytes), Ok(Some(record)));
    }
    let register = folded([(7, &revoke("chat", "one", None))]);
    let print = TokenPrint::of("one");
    let head = b"\x01\x05\x01\x01\x07\x00\x00\x00\x01\x04chat\x00\x00\x01";
    assert_eq!(register.checkpoint().encode(), [&head[..], &print.0, &[0]].concat());
}

#[test]
fn a_checkpoint_counts_only_where_it_was_taken() {
    let register = folded([(NOW, &revoke("chat", "one", None)), (NOW, &put("chat", ""))]);
    let checkpoint = register.checkpoint().encode();
    for position in [0, 1, 3, 9] {
        let mut late = Register::default();
        assert_eq!(late.apply(position, NOW, &checkpoint), Err(RegisterError::Start { position }));
    }
    let mut late = Register::default();
    assert_eq!(late.apply(2, NOW, &checkpoint), Ok(Applied::Now));
    assert_eq!((late.next(), &late.state), (3, &register.state));
    // One that another pod took before it had read all takes nothing away from who has.
    let mut other = folded([(NOW, &revoke("chat", "one", None)), (NOW, &revoke("chat", "two", None))]);
    let stale = folded([(NOW, &revoke("chat", "one", None))]).checkpoint();
    other.apply(2, NOW, &stale.encode()).unwrap();
    assert!(revoked(&other, "chat", "two", NOW));
}

#[test]
fn the_fullest_register_fits_a_record() {
    const RECORD: usize = 1024 * 1024 - 4096;
    let long = |n: usize| format!("{n:0>64}");
    let mut register = Register::default();
    for n in 0..MAX_ROWS {
        let row = register.row(&id(&long(n))).unwrap();
        row.before = u64::MAX >> 1;
        row.is_removed = true;
        row.tokens = (0..MAX_LISTED / MAX_ROWS).map(|t| (TokenPrint::of(&format!("{n} {t}")), FOREVER - 1)).collect();
    }
    let text = "x".repeat(MAX_DOCUMENTS / MAX_PROJECTS);
    let projects = (0..MAX_PROJECTS).map(|n| (id(&long(n)), SecretText(Zeroizing::new(text.clone()))));
    register.state.projects = projects.collect();
    let bytes = register.checkpoint().encode();
    assert!(bytes.len() < RECORD, "{} bytes", bytes.len());
    assert!(
        matches!(Record::decode(&bytes), Ok(Some(Record::Checkpoint(read))) if read.revocations == register.state.revocations)
    );
}

#[test]
fn no_secret_is_shown() {
    let register = folded([(NOW, &put("chat", ""))]);
    let shown = format!("{register:?} {:?} {:?}", put("chat", ""), register.checkpoint());
    assert!(!shown.contains("thirty-two"), "{shown}");
}

fn any_record() -> impl Strategy<Value = Record> {
    let project = prop::sample::select(vec!["a", "b", "c"]);
    let token = prop::sample::select(vec!["1", "2", "3", "4"]);
    prop_oneof![
        4 => (project.clone(), token, prop::option::of(0..20_000_u64)).prop_map(|(p, t, end)| revoke(p, t, end)),
        2 => (project.clone(), 0..20_000_u64).prop_map(|(p, before)| older(p, before)),
        1 => project.clone().prop_map(|p| put(p, "")),
        1 => project.prop_map(remove),
    ]
}

fn any_log() -> impl Strategy<Value = Vec<(u64, Record)>> {
    prop::collection::vec((0..1500_u64, any_record()), 0..24).prop_map(|log| {
        let mut at = 0;
        let later = |(pause, record)| {
            at += pause;
            (at, record)
        };
        log.into_iter().map(later).collect()
    })
}

proptest! {
    #[test]
    fn records_come_back(record in any_record()) {
        prop_assert_eq!(Record::decode(&record.encode()), Ok(Some(record)));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), kind in 0..7_u8) {
        let framed = [&[1, kind, 0], bytes.as_slice()].concat();
        for bytes in [&bytes, &framed] {
            let mut register = Register::default();
            if Record::decode(bytes).is_err() {
                prop_assert!(register.apply(0, NOW, bytes).is_err());
            }
        }
    }

    #[test]
    fn a_fold_from_a_checkpoint_is_the_fold_from_the_start(log in any_log(), cut in 0..24_usize) {
        let cut = cut.min(log.len());
        let (head, tail) = log.split_at(cut);
        let mut whole = folded(head.iter().map(|(at, record)| (*at, record)));
        let checkpoint = whole.checkpoint().encode();
        let (position, at) = (whole.next(), whole.state.now);
        let mut late = Register::default();
        late.apply(position, at, &checkpoint).unwrap();
        whole.apply(position, at, &checkpoint).unwrap();
        for (at, record) in tail {
            whole.apply(whole.next(), *at, &record.encode()).unwrap();
            late.apply(late.next(), *at, &record.encode()).unwrap();
        }
        prop_assert_eq!(whole, late);
    }

    #[test]
    fn what_is_read_again_changes_nothing(log in any_log(), again in prop::collection::vec(0..24_usize, 0..12)) {
        let once = folded(log.iter().map(|(at, record)| (*at, record)));
        let mut twice = Register::default();
        for (position, (at, record)) in log.iter().enumerate() {
            twice.apply(position as u64, *at, &record.encode()).unwrap();
            for earlier in again.iter().filter(|earlier| **earlier <= position) {
                let (at, record) = &log[*earlier];
                prop_assert_eq!(twice.apply(*earlier as u64, *at, &record.encode()), Ok(Applied::Before));
            }
        }
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn revocations_come_to_the_same_in_any_order(log in any_log(), seed: u64) {
        let of_tokens = |record: &&Record| matches!(record, Record::RevokeToken { .. } | Record::RevokeOlder { .. });
        let mut records: Vec<&Record> = log.iter().map(|(_, record)| record).filter(of_tokens).collect();
        let one = folded(records.iter().map(|record| (60, *record)));
        records.sort_by_key(|record| blake3::hash(&[&seed.to_be_bytes()[..], &record.encode()].concat()).as_bytes()[0]);
        let other = folded(records.into_iter().map(|record| (60, record)));
        prop_assert_eq!(one.state, other.state);
    }

    /// Against a list of all that was ever said.
    #[test]
    fn what_is_revoked_stays_revoked_until_it_has_expired(log in any_log()) {
        let mut register = Register::default();
        let mut said: Vec<(ProjectId, String, u64)> = Vec::new();
        let mut before: Vec<(ProjectId, u64)> = Vec::new();
        for (at, record) in &log {
            let was_there = |register: &Register, id: &ProjectId| register.documents().any(|(known, _)| known == id);
            let was_there = matches!(record, Record::RemoveProject { project } if was_there(&register, project));
            register.apply(register.next(), *at, &record.encode()).unwrap();
            if let Record::RevokeToken { project, id, expires_at } = record {
                said.push((project.clone(), id.clone(), expires_at.unwrap_or(u64::MAX)));
            }
            if let Record::RemoveProject { project } = record
                && was_there
            {
                // What was issued until then, and that is all that they were.
                said.retain(|(of, _, _)| of != project);
                before.push((project.clone(), *at));
            }
            if let Record::RevokeOlder { project, before: time } = record {
                before.push((project.clone(), (*time).min(*at)));
            }
            for (project, time) in before.iter().filter(|(_, time)| *time > 0) {
                prop_assert!(register.is_revoked(project, None, Some(time - 1)), "{} before {}", project, time);
            }
            for (project, token, expires_at) in &said {
                if *expires_at > *at {
                    prop_assert!(register.is_revoked(project, Some(token), Some(u64::MAX)), "{} {}", project, token);
                }
            }
            prop_assert_eq!(register.listed, register.state.revocations.values().map(|row| row.tokens.len()).sum::<usize>());
        }
    }
}

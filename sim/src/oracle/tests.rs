//! The oracle is shown histories that are broken, each in one way: it has to be able to fail.

use bytes::Bytes;
use tailwater_fanout::Head;
use tailwater_log::{
    Close, Entry, Fork, Gone, GoneReason, Kind, Message, NewRecord, Open, Piece, Record, Segment, StreamName,
    Visibility,
};
use tailwater_protocol::{ContentType, Lifetime, Offset, Producer, ProducerId, ReadOffset};
use tailwater_testkit::Landed;
use tailwater_upstream::StreamKey;
use tokio::time::Instant;

use super::{Rule, judge};
use crate::{
    history::{Created, End, Fate, Followed, Given, Looked, Pages, Told, What, Why, Wrote},
    truth::Truth,
};

/// The timestamp of the first batch; each further one comes a second later.
const BIRTH: u64 = 1_000_000;

/// A journal in the making, and what clients were told.
#[derive(Default)]
struct Case {
    journal: Vec<Landed>,
    history: Vec<Told>,
    next: u64,
}

fn key() -> StreamKey {
    StreamKey::new("p", "s")
}

fn open(lifetime: Lifetime) -> Kind {
    Kind::Open(Box::new(Open {
        incarnation: 7,
        content_type: ContentType::default_binary(),
        lifetime,
        visibility: None,
        retention_ms: None,
        adopts_native: false,
        fork: None,
    }))
}

fn claim(seq: u64) -> Producer {
    Producer { id: ProducerId::new("p").unwrap(), epoch: 0, seq }
}

fn at(seq: u64) -> Offset {
    Offset { birth: BIRTH, seq }
}

fn encode(kind: Kind, body: &'static str) -> NewRecord {
    Entry { stamp: None, kind }.encode(Bytes::from_static(body.as_bytes()))
}

impl Case {
    /// A stream that is open, at 0, with `a` at 1 and `b` at 2.
    fn new() -> Self {
        let mut case = Self::default();
        case.land(vec![encode(open(Lifetime::Forever), "")]);
        case.say("a");
        case.say("b");
        case
    }

    fn land(&mut self, records: Vec<NewRecord>) {
        let timestamp = BIRTH + 1000 * self.journal.len() as u64;
        let records: Vec<Record> =
            records.into_iter().zip(self.next..).map(|(record, seq)| record.at(seq, timestamp)).collect();
        self.next += records.len() as u64;
        self.journal.push(Landed { key: key(), log: 1, at: Instant::now(), records });
    }

    fn say(&mut self, body: &'static str) {
        self.land(vec![encode(Kind::Message(Message::default()), body)]);
    }

    fn close(&mut self) {
        self.land(vec![encode(Kind::Close(Close { by: None }), "")]);
    }

    fn end(&mut self, reason: GoneReason) {
        self.land(vec![encode(Kind::Gone(Gone { reason }), "")]);
    }

    /// Somebody was told something, all the time from `from` on.
    fn tell(&mut self, from: usize, what: What) {
        let to = self.journal.len();
        self.history.push(Told { who: self.history.len(), key: key(), from, to, what });
    }

    fn wrote(&mut self, from: usize, body: &'static str, answer: Wrote) {
        let bodies = vec![Bytes::from_static(body.as_bytes())];
        self.tell(from, What::Wrote { bodies, claim: None, closes: false, answer });
    }

    fn followed(&mut self, from: usize, start: u64, given: &[(&'static str, u64)], end: End) {
        let given = given.iter().map(|(bytes, next)| Given {
            bytes: Bytes::from_static(bytes.as_bytes()),
            count: None,
            next: at(*next),
            closed: false,
        });
        let given = given.collect();
        self.tell(
            from,
            What::Followed(Followed { asked: ReadOffset::At(at(start)), start: Some(at(start)), given, end }),
        );
    }

    fn rules(&self) -> Vec<Rule> {
        let mut rules: Vec<Rule> =
            judge(&self.history, &Truth::read(&self.journal)).into_iter().map(|breach| breach.rule).collect();
        rules.dedup();
        rules
    }
}

fn landed(seq: u64) -> Wrote {
    Wrote::Landed { next: at(seq), closed: false }
}

#[test]
fn nothing_is_wrong_with_a_history_that_is_as_it_should_be() {
    let mut case = Case::new();
    case.wrote(1, "a", landed(2));
    case.wrote(2, "b", landed(3));
    case.wrote(0, "never", Wrote::Refused(Why::Later));
    case.followed(1, 1, &[("a", 2), ("b", 3)], End::Left);
    case.close();
    case.wrote(4, "after", Wrote::Refused(Why::Closed));
    case.end(GoneReason::Deleted);
    case.tell(4, What::Deleted(Fate::Done));
    case.followed(4, 3, &[], End::Gone);
    assert_eq!(case.rules(), []);
}

#[test]
fn an_acked_message_that_is_lost_is_found() {
    let mut case = Case::new();
    case.wrote(3, "c", landed(4));
    assert_eq!(case.rules(), [Rule::Acked]);
}

#[test]
fn an_ack_that_came_before_the_message_was_durable_is_found() {
    let mut case = Case::new();
    case.wrote(3, "c", landed(4));
    case.say("c");
    assert_eq!(case.rules(), [Rule::Acked]);
}

#[test]
fn a_message_that_stands_elsewhere_than_was_said_is_found() {
    let mut case = Case::new();
    case.wrote(1, "a", landed(3));
    assert_eq!(case.rules(), [Rule::Acked]);
}

#[test]
fn messages_of_one_client_in_the_wrong_order_are_found() {
    let mut case = Case::new();
    case.wrote(0, "b", landed(3));
    case.wrote(0, "a", landed(2));
    case.history.iter_mut().for_each(|told| told.who = 1);
    assert_eq!(case.rules(), [Rule::Acked]);
}

#[test]
fn a_refused_message_that_stands_there_is_found() {
    let mut case = Case::new();
    case.wrote(0, "b", Wrote::Refused(Why::Later));
    assert_eq!(case.rules(), [Rule::Refused]);
    let mut retried = Case::new();
    retried.wrote(0, "b", Wrote::Unknown);
    retried.wrote(2, "b", Wrote::Refused(Why::Later));
    assert_eq!(retried.rules(), [], "the first attempt may have landed");
}

#[test]
fn a_message_that_stands_there_twice_is_found() {
    let mut case = Case::new();
    case.say("a");
    assert_eq!(case.rules(), [Rule::Once]);
}

#[test]
fn claims_that_were_accepted_twice_or_with_a_gap_are_found() {
    for seqs in [vec![0, 0], vec![0, 2], vec![1], vec![0, 1, 0]] {
        let mut case = Case::new();
        for (seq, body) in seqs.into_iter().zip(["x", "y", "z"]) {
            let message = Message { producer: Some(claim(seq)), stream_seq: None };
            case.land(vec![encode(Kind::Message(message), body)]);
        }
        assert_eq!(case.rules(), [Rule::Tuple]);
    }
}

#[test]
fn a_reader_that_missed_something_or_had_it_twice_is_found() {
    for given in [
        vec![("b", 3)],
        vec![("a", 2), ("ab", 3)],
        vec![("ba", 3)],
        vec![("ab", 3), ("b", 3)],
        vec![("a", 2), ("", 3)],
        vec![("ab", 3), ("", 2)],
    ] {
        let mut case = Case::new();
        case.followed(3, 1, &given, End::Left);
        assert_eq!(case.rules(), [Rule::Reader], "{given:?}");
    }
}

#[test]
fn a_reader_that_is_put_elsewhere_than_it_asked_for_is_found() {
    let mut case = Case::new();
    let followed = Followed { asked: ReadOffset::At(at(1)), start: Some(at(2)), given: Vec::new(), end: End::Left };
    case.tell(3, What::Followed(followed));
    assert_eq!(case.rules(), [Rule::Reader]);
}

#[test]
fn a_reader_that_is_sent_away_without_need_is_found() {
    for end in [End::Gone, End::Reset(at(2)), End::Refused(Why::Misplaced)] {
        let mut case = Case::new();
        case.followed(3, 1, &[], end);
        assert_eq!(case.rules(), [Rule::Reader]);
    }
    let mut trimmed = Case::new();
    trimmed.land(vec![NewRecord::trim(2)]);
    trimmed.followed(4, 1, &[], End::Reset(at(2)));
    assert_eq!(trimmed.rules(), [], "what it stood at is gone");
}

#[test]
fn a_look_that_does_not_show_what_was_there_before_is_found() {
    let mut case = Case::new();
    let pages = |body: &'static str, next| Pages {
        start: at(1),
        messages: vec![Bytes::from_static(body.as_bytes())],
        next: at(next),
        whole: true,
        closed: false,
    };
    case.tell(3, What::Read(Looked::Found(pages("a", 2))));
    assert_eq!(case.rules(), [Rule::Present]);
    case.history[0].from = 2;
    assert_eq!(case.rules(), [], "the second message came while it was asked for");
    case.tell(3, What::Looked(Looked::Refused(Why::NotFound)));
    assert_eq!(case.rules(), [Rule::True]);
}

#[test]
fn a_closed_stream_that_is_said_to_be_open_is_found() {
    let mut case = Case::new();
    case.close();
    let head = Head {
        content_type: ContentType::default_binary(),
        lifetime: Lifetime::Forever,
        visibility: Visibility::Public,
        birth: BIRTH,
        tail: at(3),
        closed: false,
    };
    case.tell(4, What::Looked(Looked::Found(head)));
    assert_eq!(case.rules(), [Rule::Closed]);
}

#[test]
fn a_message_behind_a_closure_was_lost_if_it_was_acked() {
    let mut case = Case::new();
    case.close();
    case.say("c");
    case.wrote(4, "c", landed(5));
    assert_eq!(case.rules(), [Rule::Acked]);
}

#[test]
fn a_delete_that_did_nothing_is_found() {
    let mut case = Case::new();
    case.tell(3, What::Deleted(Fate::Done));
    assert_eq!(case.rules(), [Rule::Acked]);
}

#[test]
fn a_stream_that_expired_too_early_is_found() {
    for (seconds, rules) in [(1, vec![]), (2, vec![Rule::Expiry])] {
        let mut case = Case::default();
        case.land(vec![encode(open(Lifetime::Ttl { seconds }), "")]);
        case.say("a");
        case.end(GoneReason::Expired);
        assert_eq!(case.rules(), rules);
    }
}

#[test]
fn a_commit_whose_pieces_are_not_there_is_found() {
    let mut case = Case::new();
    case.land(vec![encode(Kind::Piece(Piece { body: 1, index: 0 }), "half")]);
    let commit = tailwater_log::Commit { body: 1, pieces: vec![3, 4], bytes: 8, message: Message::default() };
    case.land(vec![encode(Kind::Commit(commit), "")]);
    assert_eq!(case.rules(), [Rule::Log]);
}

#[test]
fn a_fork_that_misses_what_its_source_held_is_found() {
    for (to, rules) in [(3, vec![]), (2, vec![Rule::Fork])] {
        let mut case = Case::new();
        let source = StreamName { project: "p".into(), stream: "s".into() };
        let chain = vec![Segment { birth: BIRTH, source: Some(source.clone()), from: 1, to }];
        let fork = Fork { source, incarnation: 7, at: at(to), sub_offset: 0, chain };
        let Kind::Open(open) = open(Lifetime::Forever) else { unreachable!() };
        let open = Open { incarnation: 8, fork: Some(fork), ..*open };
        let fork_key = StreamKey::new("p", "fork");
        let record = encode(Kind::Open(Box::new(open)), "").at(0, BIRTH + 5_000);
        case.journal.push(Landed { key: fork_key.clone(), log: 2, at: Instant::now(), records: vec![record] });
        let what = What::Created { bodies: Vec::new(), fork: Some((key(), true)), answer: Created::Fresh };
        case.history.push(Told { who: 0, key: fork_key, from: 3, to: 4, what });
        assert_eq!(case.rules(), rules);
    }
}

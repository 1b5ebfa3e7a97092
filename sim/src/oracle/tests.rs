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
        case.created();
        case.say("a");
        case.say("b");
        case
    }

    /// Somebody has asked for the stream, and does not know what became of that.
    fn created(&mut self) {
        self.tell(0, What::Created { bodies: Vec::new(), fork: None, answer: Created::Unknown });
    }

    /// A closure that somebody has asked for.
    fn closed(&mut self) {
        self.close();
        let answer = Wrote::Unknown;
        self.tell(self.journal.len() - 1, What::Wrote { bodies: Vec::new(), claim: None, closes: true, answer });
    }

    /// An end that somebody has asked for.
    fn deleted(&mut self) {
        self.end(GoneReason::Deleted);
        self.tell(self.journal.len() - 1, What::Deleted(Fate::Unknown));
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
    case.closed();
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
fn a_claim_that_lands_once_in_each_of_two_lives_is_acked_where_it_stands_in_either() {
    let births = [BIRTH, BIRTH + 3_000];
    for (told, is_so) in [((0, 2), true), ((1, 5), true), ((0, 5), false), ((1, 2), false), ((1, 4), false)] {
        let mut case = Case::default();
        for _ in births {
            let opened =
                [open(Lifetime::Forever), Kind::Message(Message { producer: Some(claim(0)), stream_seq: None })];
            for (kind, body) in opened.into_iter().zip(["", "a"]) {
                case.land(vec![encode(kind, body)]);
            }
            case.created();
            case.deleted();
        }
        let (life, seq) = told;
        let next = Offset { birth: births[life], seq };
        let bodies = vec![Bytes::from_static(b"a")];
        let answer = Wrote::Landed { next, closed: false };
        case.tell(1, What::Wrote { bodies, claim: Some(claim(0)), closes: false, answer });
        assert_eq!(case.rules(), if is_so { vec![] } else { vec![Rule::Acked] }, "{told:?}");
    }
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

/// A close, a delete and a PUT without a message, each with its answer.
fn asked_for(answer: Fate) -> [What; 3] {
    let (wrote, created) = match answer.clone() {
        Fate::Done => (landed(3), Created::Fresh),
        Fate::Refused(why) => (Wrote::Refused(why.clone()), Created::Refused(why)),
        Fate::Unknown => (Wrote::Unknown, Created::Unknown),
    };
    [
        What::Wrote { bodies: Vec::new(), claim: None, closes: true, answer: wrote },
        What::Deleted(answer),
        What::Created { bodies: Vec::new(), fork: None, answer: created },
    ]
}

/// What each of these leaves in the log, behind two messages.
fn marked(n: usize) -> Case {
    let mut case = Case::new();
    match n {
        0 => case.close(),
        1 => case.end(GoneReason::Deleted),
        _ => {}
    }
    case.history.clear();
    if n != 2 {
        case.created();
    }
    case
}

#[test]
fn a_refused_close_delete_or_create_that_lands_is_found() {
    for n in 0..3 {
        let from = if n == 2 { 0 } else { 3 };
        for answer in [Fate::Refused(Why::Later), Fate::Done, Fate::Unknown] {
            let mut case = marked(n);
            case.tell(from, asked_for(answer.clone())[n].clone());
            let rules = if answer == Fate::Refused(Why::Later) { vec![Rule::Refused] } else { Vec::new() };
            assert_eq!(case.rules(), rules, "{n}, {answer:?}");
        }
        assert_eq!(marked(n).rules(), [Rule::Refused], "{n}: nobody asked for it");
        let mut twice = marked(n);
        twice.tell(from, asked_for(Fate::Unknown)[n].clone());
        twice.tell(from, asked_for(Fate::Refused(Why::Later))[n].clone());
        assert_eq!(twice.rules(), [], "{n}: it is the work of another");
        let mut late = marked(n);
        let after = late.journal.len();
        late.tell(after, asked_for(Fate::Unknown)[n].clone());
        assert_eq!(late.rules(), [Rule::Refused], "{n}: it stood there before that was asked for");
    }
}

#[test]
fn a_producer_that_is_told_a_number_that_was_not_so_is_found() {
    let of = |epoch, seq| Producer { epoch, ..claim(seq) };
    for (accepted, asked, why, is_so) in [
        (vec![], of(0, 4), Why::Gap(0), true),
        (vec![], of(0, 0), Why::Gap(0), false),
        (vec![], of(0, 4), Why::Gap(1), false),
        (vec![of(0, 0), of(0, 1)], of(0, 4), Why::Gap(2), true),
        (vec![of(0, 0), of(0, 1)], of(0, 2), Why::Gap(2), false),
        (vec![of(0, 0), of(0, 1)], of(0, 4), Why::Gap(1), false),
        (vec![of(0, 0), of(3, 0)], of(1, 0), Why::Stale(3), true),
        (vec![of(0, 0), of(3, 0)], of(1, 0), Why::Stale(2), false),
        (vec![of(0, 0), of(3, 0)], of(3, 0), Why::Stale(3), false),
        (vec![], of(0, 0), Why::Stale(0), false),
    ] {
        let mut case = Case::new();
        for (claim, body) in accepted.into_iter().zip(["x", "y"]) {
            let message = Message { producer: Some(claim), stream_seq: None };
            case.land(vec![encode(Kind::Message(message), body)]);
        }
        let told = format!("{why:?} to {asked:?}");
        let answer = Wrote::Refused(why);
        let bodies = vec![Bytes::from_static(b"never")];
        case.tell(case.journal.len(), What::Wrote { bodies, claim: Some(asked), closes: false, answer });
        assert_eq!(case.rules(), if is_so { vec![] } else { vec![Rule::True] }, "{told}");
    }
}

#[test]
fn what_was_accepted_while_a_producer_asked_may_be_what_it_is_told_of_and_what_came_later_not() {
    for (from, to, expected, is_so) in [(3, 4, 0, true), (3, 4, 1, true), (4, 4, 0, false), (3, 4, 2, false)] {
        let mut case = Case::new();
        for (seq, body) in [(0, "x"), (1, "y")] {
            let message = Message { producer: Some(claim(seq)), stream_seq: None };
            case.land(vec![encode(Kind::Message(message), body)]);
        }
        let bodies = vec![Bytes::from_static(b"never")];
        let answer = Wrote::Refused(Why::Gap(expected));
        case.tell(from, What::Wrote { bodies, claim: Some(claim(7)), closes: false, answer });
        case.history.last_mut().unwrap().to = to;
        assert_eq!(case.rules(), if is_so { vec![] } else { vec![Rule::True] }, "{expected} from {from} to {to}");
    }
}

#[test]
fn a_reader_that_is_told_of_the_end_of_a_stream_that_never_ended_is_found_whatever_its_place() {
    let mut case = Case::new();
    case.land(vec![NewRecord::trim(2)]);
    case.followed(4, 1, &[], End::Gone);
    assert_eq!(case.rules(), [Rule::Reader], "its place is gone, and the stream is not");
    let mut ended = Case::new();
    ended.land(vec![NewRecord::trim(2)]);
    ended.deleted();
    ended.followed(4, 1, &[], End::Gone);
    assert_eq!(ended.rules(), []);
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
    case.history.last_mut().unwrap().from = 2;
    assert_eq!(case.rules(), [], "the second message came while it was asked for");
    case.tell(3, What::Looked(Looked::Refused(Why::NotFound)));
    assert_eq!(case.rules(), [Rule::True]);
}

#[test]
fn a_closed_stream_that_is_said_to_be_open_is_found() {
    let mut case = Case::new();
    case.closed();
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
    case.closed();
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
        case.created();
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

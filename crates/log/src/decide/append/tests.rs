use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    Accepted, Entry, MAX_PIECES, PRODUCER_IDLE_MS, Record, StreamState, VERSION,
    mark::{Gone, GoneReason, Reference},
    simulation::{Log, append_request, fold, name, open, requests},
};

const NOW: u64 = 10_000;

fn batch() -> BatchId {
    BatchId { writer: 3, counter: 4 }
}

fn native() -> NativeDefaults {
    NativeDefaults {
        content_type: ContentType::default_binary(),
        visibility: crate::Visibility::Public,
        incarnation: 8,
    }
}

fn kind(record: &crate::NewRecord) -> Kind {
    Entry::decode(&record.clone().at(0, 0)).unwrap().kind
}

fn state_of(kinds: Vec<Kind>) -> StreamState {
    let at = |(kind, seq)| Entry { stamp: None, kind }.encode(Bytes::new()).at(seq, NOW);
    let records: Vec<Record> = kinds.into_iter().zip(0..).map(at).collect();
    fold(StreamState::default(), &records).unwrap()
}

fn opening() -> Vec<Kind> {
    vec![Kind::Fence("o.0000000000000007".to_owned()), Kind::Open(Box::new(open(7)))]
}

fn claim(id: &str, epoch: u64, seq: u64) -> Producer {
    Producer { id: ProducerId::new(id).unwrap(), epoch, seq }
}

fn stream_seq(text: &str) -> Option<StreamSeq> {
    Some(StreamSeq::new(text.as_bytes()).unwrap())
}

/// Open, with producer `p` at epoch 1, seq 4 and `Stream-Seq` `5`.
fn in_use() -> StreamState {
    let said = |seq| Kind::Message(Message { producer: Some(claim("p", 1, seq)), stream_seq: stream_seq("5") });
    state_of([opening(), (0..5).map(said).collect()].concat())
}

fn closed(by: Option<Producer>) -> StreamState {
    state_of([opening(), vec![Kind::Fence("c.0000000000000007".to_owned()), Kind::Close(Close { by })]].concat())
}

fn judge(state: &StreamState, request: &AppendRequest) -> Outcome {
    Planner::new(state).push(request, &native())
}

fn request() -> AppendRequest {
    append_request(&["m"])
}

fn close_only() -> AppendRequest {
    AppendRequest { content: Content::Messages(Vec::new()), content_type: None, close: true, ..request() }
}

fn planned(end: usize) -> Outcome {
    Outcome::Planned { messages_end: Some(end), closes: false }
}

#[test]
fn the_first_thing_that_is_wrong_is_what_is_answered() {
    let gone = Kind::Gone(Gone { reason: GoneReason::Deleted });
    let reference = Kind::Ref(Reference { incarnation: 1, fork: name("fork") });
    let foreign =
        state_of([opening(), vec![Kind::Fence("leader".to_owned()), Kind::Close(Close { by: None })]].concat());
    let closed = closed(None);
    let tail = closed.tail_offset();
    let text = ContentType::parse("text/plain").unwrap();
    // Everything is wrong with it: type, epoch, Stream-Seq.
    let mut wrong = AppendRequest {
        content_type: Some(text),
        producer: Some(claim("p", 0, 9)),
        stream_seq: stream_seq("1"),
        ..request()
    };
    let refused = Outcome::Refused;
    for (state, refusal) in [
        (StreamState::default(), Refusal::NotFound),
        (state_of([opening(), vec![gone.clone()]].concat()), Refusal::NotFound),
        (state_of([opening(), vec![reference, gone]].concat()), Refusal::SoftDeleted),
        (foreign, Refusal::Fenced),
        (closed, Refusal::Closed { tail }),
        (in_use(), Refusal::ContentType { actual: "application/octet-stream".to_owned() }),
    ] {
        assert_eq!(judge(&state, &wrong), refused(refusal));
    }
    wrong.content_type = request().content_type;
    assert_eq!(judge(&in_use(), &wrong), refused(Refusal::StaleEpoch { current: 1 }));
    wrong.producer = Some(claim("p", 1, 9));
    assert_eq!(judge(&in_use(), &wrong), refused(Refusal::ProducerGap { expected: 5, received: 9 }));
    wrong.producer = Some(claim("p", 2, 9));
    assert_eq!(judge(&in_use(), &wrong), refused(Refusal::EpochStart));
    wrong.producer = Some(claim("p", 1, 3));
    assert_eq!(judge(&in_use(), &wrong), Outcome::Duplicate { highest: 4, closed: false }, "a retry has its old seq");
    wrong.producer = Some(claim("p", 1, 5));
    assert_eq!(judge(&in_use(), &wrong), refused(Refusal::StreamSeq));
    wrong.stream_seq = stream_seq("5");
    assert_eq!(judge(&in_use(), &wrong), refused(Refusal::StreamSeq));
    wrong.stream_seq = stream_seq("50");
    assert_eq!(judge(&in_use(), &wrong), planned(1));
}

#[test]
fn a_closed_stream_knows_the_request_that_closed_it() {
    let by = claim("p", 1, 5);
    let state = closed(Some(by.clone()));
    let refused = Outcome::Refused(Refusal::Closed { tail: state.tail_offset() });
    let duplicate = Outcome::Duplicate { highest: 5, closed: true };
    let claiming = |claim| Some(claim);
    for (request, outcome) in [
        (AppendRequest { producer: claiming(by.clone()), close: true, ..request() }, &duplicate),
        (AppendRequest { producer: claiming(by), ..close_only() }, &duplicate),
        (AppendRequest { producer: claiming(claim("p", 1, 6)), ..close_only() }, &refused),
        (AppendRequest { producer: claiming(claim("q", 1, 5)), close: true, ..request() }, &refused),
        (AppendRequest { close: true, ..request() }, &refused),
        (request(), &refused),
        (close_only(), &Outcome::AlreadyClosed),
    ] {
        assert_eq!(&judge(&state, &request), outcome, "{request:?}");
    }
}

#[test]
fn a_close_that_landed_is_recognised_when_it_is_sent_again() {
    for content in [request().content, close_only().content] {
        let request = AppendRequest { content, producer: Some(claim("p", 1, 5)), close: true, ..request() };
        let state = in_use();
        let mut planner = Planner::new(&state);
        assert!(matches!(planner.push(&request, &native()), Outcome::Planned { closes: true, .. }));
        assert_eq!(planner.push(&request, &native()), Outcome::NotNow, "nothing goes behind a close");
        let after = landed(&state, planner.finish(batch()).records, NOW);
        assert_eq!(after.token(), &Token::ours(Phase::Closed, 7));
        assert_eq!(judge(&after, &request), Outcome::Duplicate { highest: 5, closed: true });
    }
}

#[test]
fn a_body_does_not_need_the_parameters_of_the_type_and_a_close_needs_no_type() {
    let with = |text| Some(ContentType::parse(text).unwrap());
    let charset = AppendRequest { content_type: with("Application/Octet-Stream; x=y"), ..request() };
    assert_eq!(judge(&in_use(), &charset), planned(1));
    for content_type in [None, with("text/plain")] {
        let close = AppendRequest { content_type, ..close_only() };
        assert_eq!(judge(&in_use(), &close), Outcome::Planned { messages_end: None, closes: true });
    }
}

#[test]
fn only_what_is_counted_is_conditioned_on_the_position() {
    let condition = |state: &StreamState, request: &AppendRequest| {
        let mut planner = Planner::new(state);
        assert!(matches!(planner.push(request, &native()), Outcome::Planned { .. }), "{request:?}");
        planner.finish(batch()).condition
    };
    let claimed = Some(claim("q", 0, 0));
    let natives = state_of(vec![Kind::Message(Message::default())]);
    for state in [in_use(), natives] {
        for (request, expected) in [
            (request(), Condition::Token),
            (close_only(), Condition::Token),
            (AppendRequest { producer: claimed.clone(), ..request() }, Condition::TokenAndPosition),
            (AppendRequest { producer: claimed.clone(), ..close_only() }, Condition::TokenAndPosition),
            (AppendRequest { stream_seq: stream_seq("6"), ..request() }, Condition::TokenAndPosition),
        ] {
            assert_eq!(condition(&state, &request), expected, "{request:?}");
        }
    }
}

#[test]
fn what_is_decided_inside_the_batch_of_another_cannot_land() {
    for token in ["c.0000000000000007", "g.0000000000000007", "o.0000000000000009"] {
        let torn = state_of([opening(), vec![Kind::Fence(token.to_owned())]].concat());
        let mut planner = Planner::new(&torn);
        assert_eq!(planner.push(&request(), &native()), planned(1));
        assert_eq!(planner.finish(batch()).condition, Condition::TokenAndPosition, "the mark stands there already");
    }
    let turned = state_of([opening(), vec![Kind::Fence("o.0000000000000007.0000000000000001".to_owned())]].concat());
    let mut planner = Planner::new(&turned);
    assert_eq!(planner.push(&request(), &native()), planned(1));
    assert_eq!(planner.finish(batch()).condition, Condition::Token);
}

#[test]
fn the_claim_stands_on_the_last_message_and_the_stamp_on_the_last_record() {
    let state = in_use();
    let mut planner = Planner::new(&state);
    let meta = Message { producer: Some(claim("p", 1, 5)), stream_seq: stream_seq("6") };
    let three = append_request(&["a", "b", "c"]);
    let three = AppendRequest { producer: meta.producer.clone(), stream_seq: meta.stream_seq.clone(), ..three };
    assert_eq!(planner.push(&three, &native()), planned(3));
    assert_eq!(planner.push(&request(), &native()), planned(4));
    let records = planner.finish(batch()).records;
    let kinds: Vec<Kind> = records.iter().map(kind).collect();
    let plain = Kind::Message(Message::default());
    assert_eq!(kinds, [plain.clone(), plain.clone(), Kind::Message(meta), plain]);
    let stamps: Vec<_> = records.iter().map(|r| Entry::decode(&r.clone().at(0, 0)).unwrap().stamp).collect();
    let stamp = crate::Stamp { batch: batch(), checkpoint: None };
    assert_eq!(stamps, [None, None, None, Some(stamp)]);
    assert_eq!(records[0].headers.len(), 0, "an inner message is a plain record");
    assert_eq!(records[3].headers[0].value[0], VERSION);
}

#[test]
fn the_first_append_to_a_native_stream_adopts_it() {
    let state = state_of(vec![Kind::Message(Message::default())]);
    let mut planner = Planner::new(&state);
    assert_eq!(planner.push(&request(), &native()), planned(3));
    let closing = AppendRequest { close: true, ..request() };
    assert_eq!(planner.push(&closing, &native()), Outcome::Planned { messages_end: Some(4), closes: true });
    let records = planner.finish(batch()).records;
    assert!(matches!(kind(&records[1]), Kind::Open(open) if open.adopts_native && open.incarnation == 8));
    let after = landed(&state, records, NOW);
    assert_eq!(after.tail_offset().seq, 1 + 4);
    assert_eq!(after.token(), &Token::ours(Phase::Closed, 8));
    assert_eq!(after.incarnation().unwrap().chain[0].to, 2);
}

#[test]
fn an_answer_that_leans_on_what_is_only_planned_has_to_wait() {
    let state = in_use();
    let mut planner = Planner::new(&state);
    let claiming = |seq| AppendRequest { producer: Some(claim("p", 1, seq)), ..request() };
    let ordered = |text| AppendRequest { stream_seq: stream_seq(text), ..request() };
    for (request, outcome) in [
        (claiming(5), planned(1)),
        (claiming(5), Outcome::NotNow),
        (claiming(7), Outcome::NotNow),
        (claiming(6), planned(2)),
        (ordered("7"), planned(3)),
        (ordered("6"), Outcome::NotNow),
        (ordered("4"), Outcome::Refused(Refusal::StreamSeq)),
        (ordered("8"), planned(4)),
    ] {
        assert_eq!(planner.push(&request, &native()), outcome, "{request:?}");
    }
}

#[test]
fn a_batch_never_exceeds_what_the_store_takes() {
    let state = in_use();
    let heavy = |bytes| AppendRequest { content: Content::Messages(vec![Bytes::from(vec![0; bytes])]), ..request() };
    let many = |count| AppendRequest { content: Content::Messages(vec![Bytes::new(); count]), ..request() };
    let largest = heavy(MAX_BATCH_BYTES - BATCH_RESERVE - 8);
    assert!(largest.content.fits_a_batch() && !heavy(MAX_BATCH_BYTES - BATCH_RESERVE - 7).content.fits_a_batch());
    assert!(many(992).content.fits_a_batch() && !many(993).content.fits_a_batch());
    for state in [state, state_of(vec![Kind::Message(Message::default())])] {
        for requests in
            [vec![largest.clone(); 2], vec![heavy(300_000); 9], vec![many(992), many(5)], vec![many(7); 200]]
        {
            let mut planner = Planner::new(&state);
            let outcomes: Vec<Outcome> = requests
                .iter()
                .map(|request| {
                    let producer = Some(claim(&"x".repeat(256), 0, 0)).filter(|_| planner.is_empty());
                    planner.push(&AppendRequest { producer, close: false, ..request.clone() }, &native())
                })
                .collect();
            assert!(matches!(outcomes[0], Outcome::Planned { .. }));
            assert_eq!(outcomes.last(), Some(&Outcome::NotNow), "there was more than one batch of them");
            let _closing = planner.push(&close_only(), &native());
            let mut log = Log::default();
            assert_eq!(log.append(&planner.finish(batch()).records, None, None), Some(0));
        }
    }
}

#[test]
fn a_large_body_is_one_message_however_many_pieces_it_has() {
    let content = Content::Pieces { body: u64::MAX, pieces: vec![u64::MAX; MAX_PIECES], bytes: 1 << 32 };
    assert!(content.fits_a_batch() && !content.is_empty());
    let state = in_use();
    let mut planner = Planner::new(&state);
    let large = AppendRequest { content, producer: Some(claim("p", 1, 5)), ..request() };
    assert_eq!(planner.push(&large, &native()), planned(1));
    let plan = planner.finish(batch());
    let Kind::Commit(commit) = kind(&plan.records[0]) else { panic!("a commit") };
    assert_eq!((commit.pieces.len(), commit.bytes), (MAX_PIECES, 1 << 32));
    let after = landed(&state, plan.records, NOW);
    assert_eq!(after.tail_offset().seq, state.next() + 1);
    assert_eq!(judge(&after, &large), Outcome::Duplicate { highest: 5, closed: false });
}

/// The state after a batch has landed right where the plan was made.
fn landed(state: &StreamState, records: Vec<crate::NewRecord>, now: u64) -> StreamState {
    let records: Vec<Record> =
        records.into_iter().zip(state.next()..).map(|(record, seq)| record.at(seq, now)).collect();
    fold(state.clone(), &records).unwrap()
}

/// A stream whose table of producers is as full as given: `idle` of them idle at `now`, the others not.
fn crowded(idle: usize, live: usize, now: u64) -> StreamState {
    let mut state = state_of(opening());
    let crate::Life::Opened(life) = &mut state.life else { panic!("it was opened") };
    for n in 0..idle + live {
        let at_ms = if n < idle { now - PRODUCER_IDLE_MS } else { now };
        life.producers.restore(ProducerId::new(&format!("p{n}")).unwrap(), Accepted { epoch: 0, seq: 0, at_ms });
    }
    state.clock_ms = now;
    state
}

#[test]
fn a_new_producer_in_a_full_table_goes_alone() {
    let now = 2 * PRODUCER_IDLE_MS;
    let claiming = |id: &str, seq| AppendRequest { producer: Some(claim(id, 0, seq)), ..request() };
    let push = |state: &StreamState, requests: &[AppendRequest]| {
        let mut planner = Planner::new(state);
        requests.iter().map(|request| planner.push(request, &native())).collect::<Vec<_>>()
    };
    let state = crowded(1, MAX_PRODUCERS - 1, now);
    let news = [claiming("new", 0), claiming("p0", 1), claiming("new", 1), request()];
    assert_eq!(push(&state, &news), [planned(1), Outcome::NotNow, planned(2), planned(3)]);
    let known = [claiming("p0", 1), claiming("p5", 1), claiming("new", 0)];
    assert_eq!(push(&state, &known), [planned(1), planned(2), Outcome::NotNow]);
    let full = crowded(0, MAX_PRODUCERS, now);
    assert_eq!(push(&full, &news[..1]), [Outcome::Refused(Refusal::TooManyProducers)]);
}

/// One batch, and each of its requests in a batch of its own with folds between.
fn check_batch(state: &StreamState, requests: &[AppendRequest], now: u64) {
    let mut planner = Planner::new(state);
    let mut one_by_one = state.clone();
    let mut claims: Vec<&Producer> = Vec::new();
    let mut tail = None;
    for (at, request) in requests.iter().enumerate() {
        let outcome = planner.push(request, &native());
        if outcome == Outcome::NotNow {
            assert!(at > 0, "the first can always be answered");
            continue;
        }
        let mut alone = Planner::new(&one_by_one);
        match (&outcome, alone.push(request, &native())) {
            (Outcome::Planned { messages_end, closes }, Outcome::Planned { closes: alone_closes, .. }) => {
                assert_eq!(*closes, alone_closes);
                tail = messages_end.map(|end| state.next() + end as u64).or(tail);
                claims.extend(&request.producer);
                one_by_one = landed(&one_by_one, alone.finish(batch()).records, state.clock_ms);
            }
            (outcome, alone) => assert_eq!(*outcome, alone),
        }
    }
    if planner.is_empty() {
        return;
    }
    let plan = planner.finish(batch());
    let together = landed(state, plan.records.clone(), state.clock_ms);
    assert_eq!(together, StreamState { weight: together.weight, ..one_by_one });
    let later = landed(state, plan.records, now);
    if let Some(tail) = tail {
        assert_eq!(later.tail_offset().seq, tail);
    }
    for claim in claims {
        let known = later.incarnation().unwrap().producers.get(&claim.id).map(|known| (known.epoch, known.seq));
        assert!(known >= Some((claim.epoch, claim.seq)), "{claim:?} was answered, and is forgotten: {known:?}");
    }
}

proptest! {
    #[test]
    fn a_batch_is_judged_as_if_each_request_came_alone(
        before in vec(requests(), 0..6),
        requests in vec(requests(), 1..9),
        is_native in any::<bool>(),
        later in 0..2 * PRODUCER_IDLE_MS,
    ) {
        let begun = if is_native { vec![Kind::Message(Message::default())] } else { opening() };
        let mut state = state_of(begun);
        for request in &before {
            let mut planner = Planner::new(&state);
            planner.push(&request.on(state.life()), &native());
            if !planner.is_empty() {
                state = landed(&state, planner.finish(batch()).records, NOW);
            }
        }
        let requests: Vec<AppendRequest> = requests.iter().map(|request| request.on(state.life())).collect();
        check_batch(&state, &requests, NOW + later);
    }
}

/// The batch of those requests that are plain.
fn plain_batch(state: &StreamState, requests: &[AppendRequest]) -> Option<Plan> {
    let mut planner = Planner::new(state);
    for request in requests.iter().filter(|request| request.is_plain()) {
        planner.push(request, &native());
    }
    (!planner.is_empty()).then(|| planner.finish(batch()))
}

proptest! {
    #[test]
    fn plain_batches_of_one_state_are_the_same_in_whatever_order_they_land(
        before in vec(requests(), 0..6),
        one in vec(requests(), 1..5),
        two in vec(requests(), 1..5),
    ) {
        let mut state = state_of(opening());
        for request in &before {
            let mut planner = Planner::new(&state);
            planner.push(&request.on(state.life()), &native());
            if !planner.is_empty() {
                state = landed(&state, planner.finish(batch()).records, NOW);
            }
        }
        prop_assume!(state.takes_plain_batches());
        let [one, two] = [one, two].map(|requests| {
            let requests: Vec<AppendRequest> = requests.iter().map(|request| request.on(state.life())).collect();
            plain_batch(&state, &requests)
        });
        if let (Some(one), Some(two)) = (one, two) {
            prop_assert_eq!((one.condition, two.condition), (Condition::Token, Condition::Token));
            let in_order = landed(&landed(&state, one.records.clone(), NOW), two.records.clone(), NOW);
            let swapped = landed(&landed(&state, two.records, NOW), one.records, NOW);
            prop_assert_eq!(in_order, swapped);
        }
    }
}

#[test]
fn only_an_open_stream_of_ours_without_a_checkpoint_due_takes_plain_batches() {
    assert!(state_of(opening()).takes_plain_batches());
    assert!(in_use().takes_plain_batches());
    assert!(!StreamState::default().takes_plain_batches());
    assert!(!closed(None).takes_plain_batches());
    let gone = [Kind::Fence("g.0000000000000007".to_owned()), Kind::Gone(Gone { reason: GoneReason::Deleted })];
    assert!(!state_of([opening(), gone.to_vec()].concat()).takes_plain_batches());
    let inside = [opening(), vec![Kind::Fence("c.0000000000000007".to_owned())]].concat();
    assert!(!state_of(inside).takes_plain_batches());
    assert!(!state_of([opening(), vec![Kind::Fence("another's".to_owned())]].concat()).takes_plain_batches());
    let long = state_of([opening(), vec![Kind::Message(Message::default()); 2000]].concat());
    assert!(long.checkpoint_due() && !long.takes_plain_batches());
}

#[test]
fn what_counts_or_closes_or_is_large_is_not_plain() {
    assert!(request().is_plain());
    let large = Content::Messages(vec![Bytes::from(vec![0; 2 << 20])]);
    let pieces = Content::Pieces { body: 1, pieces: vec![3], bytes: 2 << 20 };
    for other in [
        close_only(),
        AppendRequest { close: true, ..request() },
        AppendRequest { producer: Some(claim("p", 0, 0)), ..request() },
        AppendRequest { stream_seq: stream_seq("1"), ..request() },
        AppendRequest { content: large, ..request() },
        AppendRequest { content: pieces, ..request() },
    ] {
        assert!(!other.is_plain(), "{other:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_accepted_claim_is_forgotten_in_a_crowd(
        idle in prop_oneof![1 => Just(0), 4 => 1..4usize, 1 => Just(MAX_PRODUCERS / 2)],
        missing in 0..2usize,
        claims in vec((prop_oneof![0..4usize, MAX_PRODUCERS - 4..MAX_PRODUCERS + 6], 0..3u64), 1..8),
        later in prop_oneof![Just(0), 0..2 * PRODUCER_IDLE_MS],
    ) {
        let now = 2 * PRODUCER_IDLE_MS;
        let state = crowded(idle, MAX_PRODUCERS - idle - missing, now);
        let claiming = |(n, seq): (usize, u64)| AppendRequest { producer: Some(claim(&format!("p{n}"), 0, seq)), ..request() };
        let requests: Vec<AppendRequest> = claims.into_iter().map(claiming).collect();
        check_batch(&state, &requests, now + later);
    }
}

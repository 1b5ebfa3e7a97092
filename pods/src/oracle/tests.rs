//! Histories that are in order, and the same with one thing broken: each is found, and named.

use super::*;
use crate::{
    history::{Begun, End},
    message::Content,
};

/// No rule is broken.
const NONE: [Rule; 0] = [];

fn message(writer: u32, number: u32) -> Message {
    Message { writer, number }
}

fn end(pod: &str, truth: &[Message]) -> End {
    let texts = truth.iter().map(|message| message.text(3)).collect();
    End { told_by: pod.to_owned(), bytes: Content::Json.encode(texts), next: format!("0_{}", truth.len()) }
}

fn writer(writer: u32, kind: WriterKind, appends: &[(u32, u32, Fate)]) -> WriterHistory {
    let appends = appends.iter().map(|(first, count, fate)| Append { first: *first, count: *count, fate: *fate });
    let (appends, breaches) = (appends.collect(), Vec::new());
    WriterHistory { writer, kind, appends, retried: 0, failed_twice: 0, breaches }
}

fn reader(from: Start, seen: &[Message]) -> ReaderHistory {
    let (name, seen) = ("a reader".to_owned(), seen.to_vec());
    ReaderHistory { name, from, begun: None, behind: None, seen, resumes: 12, finished: true, breaches: Vec::new() }
}

/// One that was first told where it is when so many stood before that, and was given so many of them.
fn late(truth: &[Message], before: usize, given: usize, seen: &[Message]) -> ReaderHistory {
    let texts = truth[before..].iter().map(|message| message.text(3)).collect();
    let (begun, behind) = (Begun { offset: format!("0_{before}"), messages: given }, Content::Json.encode(texts));
    ReaderHistory { begun: Some(begun), behind: Some(behind), ..reader(Start::Now, seen) }
}

/// A plain writer with each of the fates, a producer, and readers of both kinds.
fn truth() -> Vec<Message> {
    vec![message(0, 0), message(1, 0), message(0, 2), message(0, 3), message(1, 1), message(0, 1), message(1, 2)]
}

fn history(truth: &[Message]) -> StreamHistory {
    let [acked, refused, unknown] = [Fate::Acked, Fate::Refused, Fate::Unknown];
    let plain = [(0, 1, acked), (1, 1, unknown), (2, 2, acked), (4, 1, refused), (5, 2, unknown)];
    let producer = [(0, 1, acked), (1, 1, acked), (2, 1, unknown)];
    StreamHistory {
        name: "s".to_owned(),
        content: Content::Json,
        writers: vec![writer(0, WriterKind::Plain, &plain), writer(1, WriterKind::Producer, &producer)],
        readers: vec![reader(Start::Beginning, truth), late(truth, 3, 0, &truth[3..]), reader(Start::Now, &[])],
        ends: ["pod 0", "pod 1", "pod 2"].map(|pod| end(pod, truth)).to_vec(),
    }
}

/// What a reader has seen, without one of it.
fn without(reader: &ReaderHistory, place: usize) -> Vec<Message> {
    [&reader.seen[..place], &reader.seen[place + 1..]].concat()
}

/// The rules that are broken, each once.
fn broken(history: StreamHistory) -> Vec<Rule> {
    let mut rules: Vec<Rule> = judge(&[history]).breaches.iter().map(|breach| breach.rule).collect();
    rules.dedup();
    rules
}

/// The history of this truth, whose readers have seen it all.
fn stored(change: impl FnOnce(&mut Vec<Message>)) -> StreamHistory {
    let mut changed = truth();
    change(&mut changed);
    StreamHistory { readers: vec![reader(Start::Beginning, &changed)], ..history(&changed) }
}

/// The history of the right truth, of which a reader has seen something else.
fn seen(change: impl FnOnce(&mut ReaderHistory)) -> StreamHistory {
    let mut history = history(&truth());
    change(&mut history.readers[0]);
    history
}

#[test]
fn a_history_in_order_is_found_in_order_and_counted() {
    let verdict = judge(&[history(&truth())]);
    assert_eq!(verdict.breaches, []);
    let counts = Counts {
        stored: 7,
        acked_plain: 3,
        acked_producer: 2,
        refused: 1,
        unknown: 4,
        unknown_stored: 2,
        delivered: 11,
        readers: 3,
        resumes: 36,
        least_resumes: 12,
    };
    assert_eq!(verdict.counts, counts);
}

#[test]
fn what_is_stored_wrongly_is_found() {
    assert_eq!(broken(stored(|truth| truth.retain(|own| *own != message(0, 0)))), [Rule::Lost]);
    assert_eq!(broken(stored(|truth| truth.retain(|own| *own != message(1, 1)))), [Rule::Lost]);
    assert_eq!(broken(stored(|truth| truth.push(message(0, 0)))), [Rule::Repeated]);
    assert_eq!(broken(stored(|truth| truth.push(message(0, 1)))), [Rule::Repeated], "unknown means once at most");
    assert_eq!(broken(stored(|truth| truth.push(message(0, 4)))), [Rule::Refused]);
    assert_eq!(broken(stored(|truth| truth.push(message(0, 7)))), [Rule::Foreign], "it was never sent");
    assert_eq!(broken(stored(|truth| truth.push(message(2, 0)))), [Rule::Foreign], "there is no such writer");
}

#[test]
fn what_was_sent_together_stands_together() {
    assert_eq!(broken(stored(|truth| truth.extend([message(0, 5), message(0, 6)]))), NONE);
    assert_eq!(broken(stored(|truth| truth.push(message(0, 5)))), [Rule::Torn]);
    assert_eq!(broken(stored(|truth| truth.insert(3, message(0, 5)))), [Rule::Torn]);
    assert_eq!(broken(stored(|truth| truth.swap(3, 4))), [Rule::Torn]);
}

#[test]
fn the_order_of_a_writer_is_kept() {
    assert_eq!(broken(stored(|truth| truth.rotate_left(1))), [Rule::Order], "acknowledged, by a plain writer");
    assert_eq!(broken(stored(|truth| truth.swap(1, 4))), [Rule::Order], "acknowledged, by a producer");
    assert_eq!(broken(stored(|truth| truth.swap(4, 6))), [Rule::Order], "unknown, by a producer");
    assert_eq!(broken(stored(|truth| truth.swap(5, 6))), NONE, "unknown, by a plain one");
}

#[test]
fn a_gap_and_a_repeat_of_a_reader_are_found() {
    assert_eq!(broken(seen(|reader| reader.seen = without(reader, 2))), [Rule::Gap]);
    assert_eq!(broken(seen(|reader| reader.seen = without(reader, 0))), [Rule::Gap], "the first one");
    assert_eq!(broken(seen(|reader| reader.seen = without(reader, 6))), [Rule::Gap], "the last one");
    assert_eq!(broken(seen(|reader| reader.seen.insert(3, message(1, 0)))), [Rule::Repeat]);
    assert_eq!(broken(seen(|reader| reader.seen.push(message(1, 2)))), [Rule::Repeat], "at the end");
    assert_eq!(broken(seen(|reader| reader.seen.swap(2, 3))), [Rule::Gap], "out of order");
    assert_eq!(broken(seen(|reader| reader.seen[2] = message(9, 9))), [Rule::Foreign]);
}

#[test]
fn a_reader_of_what_comes_is_held_to_it_from_its_first_offset_on() {
    let of = |before, given, seen: &[Message]| StreamHistory {
        readers: vec![late(&truth(), before, given, seen)],
        ..history(&truth())
    };
    assert_eq!(broken(of(5, 0, &truth()[5..])), NONE);
    assert_eq!(broken(of(7, 0, &[])), NONE);
    assert_eq!(broken(of(4, 0, &truth()[5..])), [Rule::Gap], "the first one behind its offset");
    assert_eq!(broken(of(5, 0, &[])), [Rule::Gap], "all of them");
    assert_eq!(broken(of(5, 0, &truth()[4..])), [Rule::Repeat], "one that stands before its offset");
    assert_eq!(broken(of(3, 0, &truth()[3..5])), [Rule::Gap], "it came to the end");
    assert_eq!(broken(of(3, 0, &[truth()[3], truth()[5]])), [Rule::Gap]);
    assert_eq!(broken(of(5, 0, &[message(0, 4)])), [Rule::Foreign]);
}

#[test]
fn messages_that_came_with_the_first_offset_stand_right_before_it() {
    let of = |before, given, seen: &[Message]| StreamHistory {
        readers: vec![late(&truth(), before, given, seen)],
        ..history(&truth())
    };
    assert_eq!(broken(of(5, 2, &truth()[3..])), NONE);
    assert_eq!(broken(of(5, 1, &truth()[3..])), [Rule::Repeat]);
    assert_eq!(broken(of(5, 2, &[&truth()[2..4], &truth()[5..]].concat())), [Rule::Repeat], "others");
    assert_eq!(broken(of(1, 2, &truth())), [Rule::Repeat], "more than there are");
}

#[test]
fn a_pod_that_tells_something_else_behind_an_offset_is_found() {
    let with = |behind: Option<Vec<u8>>| {
        let reader = ReaderHistory { behind, ..late(&truth(), 5, 0, &truth()[5..]) };
        StreamHistory { readers: vec![reader], ..history(&truth()) }
    };
    let told = |of: &[Message]| Some(Content::Json.encode(of.iter().map(|message| message.text(3)).collect()));
    assert_eq!(broken(with(told(&truth()[5..]))), NONE);
    assert_eq!(broken(with(told(&truth()[4..6]))), [Rule::Equal]);
    assert_eq!(broken(with(Some(b"nonsense".to_vec()))), [Rule::Foreign]);
    assert_eq!(broken(with(None)), [Rule::Foreign], "nobody was asked");
}

#[test]
fn a_reader_that_does_not_come_to_the_end_is_found_and_what_it_saw_is_judged() {
    let cut = |reader: &mut ReaderHistory| {
        reader.finished = false;
        reader.seen.truncate(3);
    };
    assert_eq!(broken(seen(cut)), [Rule::Unfinished]);
    let wrong = |reader: &mut ReaderHistory| {
        cut(reader);
        reader.seen.remove(1);
    };
    assert_eq!(broken(seen(wrong)), [Rule::Unfinished, Rule::Gap]);
}

#[test]
fn pods_that_tell_something_else_and_no_pods_at_all_are_found() {
    let mut other = history(&truth());
    other.ends[1] = end("pod 1", &truth()[1..]);
    assert_eq!(broken(other), [Rule::Equal]);
    let mut elsewhere = history(&truth());
    elsewhere.ends[2].next = "0_9".to_owned();
    assert_eq!(broken(elsewhere), [Rule::Equal]);
    assert_eq!(broken(StreamHistory { ends: Vec::new(), ..history(&truth()) }), [Rule::Equal]);
    let mut nonsense = history(&truth());
    nonsense.ends.iter_mut().for_each(|end| end.bytes = b"nonsense".to_vec());
    assert_eq!(broken(nonsense), [Rule::Foreign]);
}

#[test]
fn what_clients_complain_of_is_told() {
    let mut history = history(&truth());
    history.writers[0].breaches.push("400".to_owned());
    history.readers[1].breaches.push("an event of another kind".to_owned());
    let verdict = judge(&[history]);
    assert_eq!((verdict.breaches_of(Rule::Told), verdict.breaches.len()), (2, 2));
}

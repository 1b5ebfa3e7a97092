//! What writers send cannot make an event, a field or an id of Server-Sent Events (HTML, section 9.2.6): hostile messages
//! are read on each way that a live response can take, by a parser of the standard that checks the protocol's rules.

use proptest::{prelude::*, sample::select};
use tailwater_server::Config;
use tailwater_testkit::{
    Chunks, Piece,
    sse::{DurableEvent, DurableSse, Payload},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    fixture::Fixture,
    wire::{read_until, request, serve},
};

const PATH: &str = "/v1/stream/s";

/// What is special to an event stream, and what others take for the end of a line.
const PIECES: [&str; 24] = [
    "\n",
    "\r",
    "\r\n",
    "\n\n",
    "\r\r",
    "\r\n\r\n",
    "\0",
    "\u{feff}",
    "\u{2028}",
    "\u{2029}",
    "\u{85}",
    "\u{b}",
    ":",
    " ",
    "data:",
    "data: x",
    "event: control",
    "event:data",
    "id: 9",
    "id:\0",
    "retry: 1",
    "{\"streamNextOffset\":\"9\"}",
    ":comment",
    "x",
];

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(select(&PIECES[..]), 1..8).prop_map(|pieces| pieces.concat().into_bytes())
}

/// JSON that holds the same in its strings, and what JSON allows of it between its tokens.
fn json() -> impl Strategy<Value = Vec<u8>> {
    (text(), select(vec!["\r", "\n", "\r\n", "\n\n", "\r\r", " "])).prop_map(|(text, space)| {
        let string = serde_json::Value::from(String::from_utf8(text).unwrap());
        format!("{space}{{{space}{string}{space}:{space}1{space}}}{space}").into_bytes()
    })
}

/// Bytes that are the same, or anything.
fn binary() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![text(), prop::collection::vec(any::<u8>(), 1..20)]
}

/// What two readers were sent: one that was there all the time, and has been at a delivery shard; and one that came for
/// what had been written, inside the HTTP library.
async fn followed(content_type: &str, messages: &[Vec<u8>]) -> [Vec<u8>; 2] {
    let fixture = Fixture::with(Config { delivery_shards: 1, ..Config::default() }, Default::default());
    fixture.send("PUT", PATH, &[("content-type", content_type)], "").await;
    let (_server, address) = serve(&fixture).await;
    let mut live = request(address, &format!("GET {PATH}?offset=-1&live=sse HTTP/1.1\r\nhost: h")).await;
    let begun = read_until(&mut live, "upToDate").await;
    for message in messages {
        fixture.post(PATH, content_type, message.clone()).await;
    }
    fixture.send("POST", PATH, &[("stream-closed", "true")], "").await;
    let mut replay = fixture.live(&format!("{PATH}?offset=-1&live=sse"), &[]).await;
    let mut replayed = Vec::new();
    while let Some(chunk) = replay.chunk().await {
        replayed.extend_from_slice(chunk.as_bytes());
    }
    let mut rest = Vec::new();
    live.write_all(b"GET /health HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.unwrap();
    live.read_to_end(&mut rest).await.unwrap();
    let all = [begun.as_bytes(), &rest].concat();
    let body = all.windows(4).position(|at| at == b"\r\n\r\n").expect("a head") + 4;
    let mut chunks = Chunks::default();
    let end = b"\r\n0\r\n\r\n";
    let ends = all.windows(end.len()).rposition(|at| at == end).expect("the end of the body") + end.len();
    chunks.push(&all[body..ends]);
    let mut sent = Vec::new();
    while let Some(Piece::Chunk { bytes, .. }) = chunks.pop().unwrap() {
        sent.extend_from_slice(&bytes);
    }
    [sent, replayed]
}

/// The data that a client of the protocol reads there, which must be all that is there.
fn data(sent: &[u8], payload: Payload) -> Vec<Vec<u8>> {
    let mut client = DurableSse::new(payload);
    client.push(sent);
    let mut data = Vec::new();
    while let Some(event) = client.pop() {
        match event.unwrap() {
            DurableEvent::Data(bytes) => data.push(bytes.to_vec()),
            DurableEvent::Control(_) => {}
            other @ (DurableEvent::Reset { .. } | DurableEvent::Gone | DurableEvent::Unauthorized { .. }) => {
                panic!("{other:?}")
            }
        }
    }
    client.finish().unwrap();
    assert!(client.is_closed(), "the last event says that it is the last");
    assert_eq!(Some(client.last_event_id()), client.offset(), "no id but the gateway's");
    assert_eq!(client.reconnection_time(), None, "no time but the gateway's");
    data
}

fn run(content_type: &str, messages: &[Vec<u8>]) -> [Vec<u8>; 2] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(followed(content_type, messages))
}

/// Line ends arrive as LF, and one may be cut in two.
fn without_line_ends(text: &[u8]) -> String {
    String::from_utf8(text.to_vec()).unwrap().replace(['\r', '\n'], "")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn text_stays_data(messages in prop::collection::vec(text(), 1..5)) {
        for sent in run("text/plain", &messages) {
            let read = data(&sent, Payload::Text).concat();
            prop_assert_eq!(without_line_ends(&read), without_line_ends(&messages.concat()));
        }
    }

    #[test]
    fn json_stays_data(messages in prop::collection::vec(json(), 1..5)) {
        let parse = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        let written: Vec<_> = messages.iter().map(|message| parse(message)).collect();
        for sent in run("application/json", &messages) {
            let read = data(&sent, Payload::Json).into_iter().flat_map(|array| parse(&array).as_array().unwrap().clone());
            prop_assert_eq!(read.collect::<Vec<_>>(), written.clone());
        }
    }

    #[test]
    fn bytes_stay_data(messages in prop::collection::vec(binary(), 1..5)) {
        for sent in run("application/octet-stream", &messages) {
            prop_assert_eq!(data(&sent, Payload::Binary).concat(), messages.concat());
        }
    }
}

//! What goes in comes out: text through Server-Sent Events, JSON, bodies of every size.

use bytes::Bytes;
use http::Method;
use tailwater_protocol::sse::{self, Control};
use tailwater_testkit::sse::Payload;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    client::Client,
    fixture::{House, PATIENCE, Settings},
};

const MIB: usize = 1024 * 1024;

/// What arrives of text by Server-Sent Events: its line ends are all line feeds, and nothing else differs.
fn normalized(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// Bytes that repeat at no power of two, so that a piece in the wrong place shows.
fn pattern(size: usize) -> Bytes {
    (0..size).map(|index| u8::try_from(index % 251).unwrap()).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn text_arrives_over_server_sent_events_but_for_its_carriage_returns() {
    let house = House::start().await;
    let client = house.client();
    let texts = [
        " one space",
        "  two spaces",
        "\ttab",
        "a\nb",
        "a\r\nb",
        "a\rb",
        "\n",
        "\n\n",
        "trailing\n",
        "\r\n\r\n x",
        " \n \n",
        "data: x\n\nevent: control\ndata: {}",
        "id: 7\nretry: 1",
        ": comment",
        "é😀\u{2028}\u{85}\u{feff}",
        "\u{feff}mark",
        "\0",
    ];
    for (index, text) in texts.iter().enumerate() {
        let stream = format!("t{index}");
        client.create(&stream, "text/plain").await;
        let mut live = client.get(&format!("{stream}?offset=-1&live=sse")).follow(Payload::Text).await;
        live.until_up_to_date().await;
        client.append(&stream, text).await;
        live.until_bytes(normalized(text).len()).await;
        assert_eq!(live.text(), normalized(text), "{text:?}");
        let mut late = client.get(&format!("{stream}?offset=-1&live=sse")).follow(Payload::Text).await;
        late.until_up_to_date().await;
        assert_eq!(late.text(), normalized(text), "{text:?}");
        assert_eq!(client.read(&stream).await, *text, "catch-up is byte for byte");
    }
}

#[tokio::test]
async fn a_reader_that_is_cut_off_inside_a_character_gets_it_whole_when_it_comes_back() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    client.append("s", "before.").await;
    let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Text).await;
    reader.until_data("before.").await;
    for byte in "€".bytes().take(2) {
        client.post("s").text(vec![byte]).send().await.expect(204);
    }
    // Nothing of the character may have been confirmed, so whoever goes on from here reads it whole.
    let offset = reader.offset();
    drop(reader);
    let mut again = client.get(&format!("s?offset={offset}&live=sse")).follow(Payload::Text).await;
    client.post("s").text(b"\xac after.".to_vec()).send().await.expect(204);
    again.until_data("after.").await;
    assert_eq!(again.text(), "€ after.");
}

#[tokio::test]
async fn every_split_of_a_text_into_appends_arrives_whole() {
    let house = House::start().await;
    let client = house.client();
    let text = "a€b😀é";
    for cut in 1..text.len() {
        let stream = format!("c{cut}");
        client.create(&stream, "text/plain").await;
        let mut live = client.get(&format!("{stream}?offset=-1&live=sse")).follow(Payload::Text).await;
        for part in [&text.as_bytes()[..cut], &text.as_bytes()[cut..]] {
            client.post(&stream).text(part.to_vec()).send().await.expect(204);
        }
        live.until_bytes(text.len()).await;
        assert_eq!(live.text(), text, "cut at {cut}");
    }
}

#[tokio::test]
async fn text_that_is_no_utf_8_keeps_its_bytes_in_catch_up() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    client.post("s").text(b"a\xff\xfeb".to_vec()).send().await.expect(204);
    assert_eq!(client.read_from("s", "-1").await, b"a\xff\xfeb");
    let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Text).await;
    reader.until_up_to_date().await;
    assert_eq!(reader.text(), "a\u{fffd}\u{fffd}b");
}

#[tokio::test]
async fn the_bytes_of_an_event_are_those_that_the_public_clients_expect() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let next = client.append("s", "one\n two").await;
    let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Text).await;
    let control = reader.until_up_to_date().await;
    let Ok(tailwater_protocol::ReadOffset::At(at)) = tailwater_protocol::ReadOffset::parse(&next) else { panic!() };
    let mut expected = format!("id: {at}\nevent: data\ndata:one\ndata:  two\n\n").into_bytes();
    let spelled = Control { next: at, cursor: control.cursor, up_to_date: true, closed: false, id: true };
    sse::write_control(&mut expected, &spelled);
    assert_eq!(String::from_utf8(reader.raw).unwrap(), String::from_utf8(expected).unwrap());
}

#[tokio::test]
async fn binary_is_base64_in_server_sent_events_and_itself_elsewhere() {
    let house = House::start().await;
    let client = house.client();
    for content_type in ["application/octet-stream", "image/png", "application/x-ndjson", "application/vnd.a+json"] {
        let stream = content_type.replace(['/', '+', '.'], "-");
        client.create(&stream, content_type).await;
        let body = pattern(1000);
        client.post(&stream).body(content_type, body.clone()).send().await.expect(204);
        client.post(&stream).body(content_type, vec![0xff]).send().await.expect(204);
        let mut reader = client.get(&format!("{stream}?offset=-1&live=sse")).follow(Payload::Binary).await;
        reader.until_bytes(1001).await;
        assert_eq!(reader.data, [&body[..], &[0xff]].concat());
        assert_eq!(client.read_from(&stream, "-1").await, reader.data);
    }
}

#[tokio::test]
async fn json_is_flattened_one_level_and_read_as_one_array() {
    let house = House::start().await;
    let client = house.client();
    client.put("s").json("[1,[2],\"3\"]").send().await.expect(201);
    client.post("s").json("{\"a\":[]}").send().await.expect(204);
    let before = client.head("s").send().await.next();
    client.post("s").json("[[1,2]]").send().await.expect(204);
    assert_eq!(client.read("s").await, "[1,[2],\"3\",{\"a\":[]},[1,2]]");
    assert_eq!(client.read_from("s", &before).await, b"[[1,2]]");
    assert_eq!(client.get("s?offset=now").send().await.expect(200).text(), "[]");
}

#[tokio::test]
async fn a_body_of_eight_mebibytes_is_one_message() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "application/octet-stream").await;
    let mut live = client.get("s?offset=-1&live=sse").follow(Payload::Binary).await;
    live.until_up_to_date().await;
    let body = pattern(8 * MIB);
    let next = client.post("s").body("application/octet-stream", body.clone()).send().await.expect(204).next();
    let control = live.until_bytes(body.len()).await;
    assert!(live.data == body && control.next == next, "it comes as one");
    let page = client.get("s?offset=-1").send().await.expect(200);
    assert!(page.body == body && page.next() == next, "and is read as one");
}

#[tokio::test]
async fn a_stream_can_be_created_with_eight_mebibytes() {
    let house = House::start().await;
    let client = house.client();
    let body = pattern(8 * MIB);
    client.put("s").body("application/octet-stream", body.clone()).send().await.expect(201);
    assert!(client.read_from("s", "-1").await == body);
}

#[tokio::test]
async fn a_large_json_body_is_all_or_nothing() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "application/json").await;
    let values: Vec<String> = (0..5_000).map(|n| format!("\"{n:0>400}\"")).collect();
    let array = format!("[{}]", values.join(","));
    client.post("s").json(array.clone()).producer("p", 0, 0).send().await.expect(200);
    client.post("s").json(array.clone()).producer("p", 0, 0).send().await.expect(204);
    let mut whole = Vec::new();
    let mut offset = "-1".to_owned();
    loop {
        let page = client.get(&format!("s?offset={offset}")).send().await.expect(200);
        whole.extend(page.json().as_array().unwrap().iter().map(ToString::to_string));
        offset = page.next();
        if page.header("stream-up-to-date").is_some() {
            break;
        }
    }
    assert!(whole == values);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_with_and_without_a_length() {
    let house = House::with(Settings::server(|config| config.max_body = 1000)).await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let chunks = || (0..11).map(|_| Bytes::from_static(&[b'x'; 100])).collect::<Vec<_>>();
    client.post("s").text(vec![b'x'; 1001]).send().await.refused(413, "body_too_large");
    client.post("s").chunked("text/plain", chunks()).send().await.refused(413, "body_too_large");
    client.put("new").text(vec![b'x'; 1001]).send().await.refused(413, "body_too_large");
    client.put("new").chunked("text/plain", chunks()).send().await.refused(413, "body_too_large");
    client.head("new").send().await.expect(404);
    assert_eq!(client.read("s").await, "");
    client.post("s").chunked("text/plain", chunks()[..10].to_vec()).send().await.expect(204);
    client.post("s").text(vec![b'y'; 1000]).send().await.expect(204);
    assert_eq!(client.read("s").await.len(), 2000);
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_too_much_is_refused_at_once() {
    let house = House::start().await;
    let mut socket = TcpStream::connect(house.client().addr()).await.unwrap();
    let head = "POST /v1/stream/s HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: 99999999\r\n\
                expect: 100-continue\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(PATIENCE, socket.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn an_encoded_body_is_refused_and_nothing_is_written() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    for encoding in ["gzip", "br", "deflate", "zstd", "identity, gzip", "x"] {
        let code = "content_encoding_not_supported";
        client.post("s").text("a").header("content-encoding", encoding).send().await.refused(415, code);
        client.put("new").text("a").header("content-encoding", encoding).send().await.refused(415, code);
    }
    client.head("new").send().await.expect(404);
    client.post("s").text("a").header("content-encoding", "identity").send().await.expect(204);
    assert_eq!(client.read("s").await, "a");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_appended() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    for head in ["POST /v1/stream/s", "PUT /v1/stream/new"] {
        for body in ["content-length: 10\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
            let mut socket = TcpStream::connect(client.addr()).await.unwrap();
            let request = format!("{head} HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\n{body}");
            socket.write_all(request.as_bytes()).await.unwrap();
            socket.shutdown().await.unwrap();
            // The end of the answer, if there is one, says that the request has been dealt with.
            let mut answer = Vec::new();
            timeout(PATIENCE, socket.read_to_end(&mut answer)).await.unwrap().unwrap();
            assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
        }
    }
    assert_eq!(client.read("s").await, "");
    client.head("new").send().await.expect(404);
}

#[tokio::test]
async fn a_chain_of_forks_reads_as_one_stream() {
    let house = House::start().await;
    let client = house.client();
    client.put("a").json("[1,2]").send().await.expect(201);
    for (source, fork, value) in [("a", "b", "3"), ("b", "c", "4"), ("c", "d", "5")] {
        fork_of(client, fork, source).await;
        client.post(fork).json(value).send().await.expect(204);
        client.post(source).json("0").send().await.expect(204);
    }
    assert_eq!(client.read("d").await, "[1,2,3,4,5]");
    let mut reader = client.get("d?offset=-1&live=sse").follow(Payload::Json).await;
    reader.until_up_to_date().await;
    assert_eq!(reader.text(), "1,2,3,4,5");
    client.post("d").json("6").send().await.expect(204);
    reader.until_data("6").await;
    assert_eq!(client.read("a").await, "[1,2,0]");
}

async fn fork_of(client: &Client, fork: &str, source: &str) {
    let ask = client.ask(Method::PUT, fork).header("stream-forked-from", format!("/v1/stream/{source}"));
    ask.send().await.expect(201);
}

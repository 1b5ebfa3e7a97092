//! A client in a few lines: HTTP/1.0, so that an answer ends with its connection and is never in chunks.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// An answer whose body is still to come.
pub(crate) struct Open {
    pub(crate) answer: Answer,
    pub(crate) body: BufReader<TcpStream>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// The code of a problem.
    pub(crate) fn code(&self) -> String {
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        problem["code"].as_str().unwrap().to_owned()
    }
}

/// Sends a request and reads the head of the answer.
pub(crate) fn open(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Open> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut request = format!("{method} {path} HTTP/1.0\r\nhost: {addr}\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request.push_str(body);
    stream.write_all(request.as_bytes())?;
    let mut body = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if body.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let status = lines[0].split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok(Open { answer: Answer { status, headers, body: String::new() }, body })
}

/// Sends a request and reads the whole answer, of as many bytes as it has said.
pub(crate) fn send(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Answer> {
    let Open { mut answer, mut body } = open(addr, method, path, headers, body)?;
    body.read_to_string(&mut answer.body)?;
    let whole = answer.header("content-length").is_none_or(|length| length == answer.body.len().to_string());
    if whole || method == "HEAD" { Ok(answer) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// A stream by its name, on a gateway that is up.
pub(crate) struct Streams(pub(crate) SocketAddr);

impl Streams {
    pub(crate) fn send(&self, method: &str, stream: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.attempt(method, stream, headers, body).unwrap_or_else(|error| panic!("{method} {stream}: {error}"))
    }

    pub(crate) fn attempt(
        &self,
        method: &str,
        stream: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Answer> {
        send(self.0, method, &format!("/v1/stream/{stream}"), headers, body)
    }

    pub(crate) fn create(&self, stream: &str, body: &str) {
        self.send("PUT", stream, &[("content-type", "text/plain")], body).expect(201);
    }

    pub(crate) fn append(&self, stream: &str, body: &str) -> Answer {
        self.send("POST", stream, &[("content-type", "text/plain")], body)
    }

    /// The whole of a stream, page by page.
    pub(crate) fn read(&self, stream: &str) -> String {
        let (mut offset, mut whole) = ("-1".to_owned(), String::new());
        loop {
            let page = self.send("GET", &format!("{stream}?offset={offset}"), &[], "").expect(200);
            whole.push_str(&page.body);
            if page.header("stream-up-to-date").is_some() {
                return whole;
            }
            offset = page.header("stream-next-offset").unwrap().to_owned();
        }
    }

    /// A reader of Server-Sent Events whose first event has come.
    pub(crate) fn follow(&self, stream: &str) -> Open {
        let mut open = open(self.0, "GET", &format!("/v1/stream/{stream}?offset=-1&live=sse"), &[], "").unwrap();
        assert_eq!(open.answer.status, 200);
        let mut first = String::new();
        open.body.read_line(&mut first).unwrap();
        open
    }
}

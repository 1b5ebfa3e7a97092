//! The program with `--s2 cloud`, and a client of it.

use std::{
    fs,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::front::Front;

/// How long a test waits for what must come. Never reached where all is well.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whose certificate the program trusts.
pub(crate) enum Trust {
    /// The front's.
    Front,
    /// Another one for the same names.
    SomebodyElse,
}

/// A running program. It ends with the test.
pub(crate) struct Gateway {
    url: String,
    client: Client<HttpConnector, Full<Bytes>>,
    log: Arc<Mutex<String>>,
    _child: Child,
    _directory: TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: String,
}

/// A live response.
pub(crate) struct Reader {
    response: Response<Incoming>,
    text: String,
}

impl Gateway {
    pub(crate) async fn start(front: &Front, basin: &str, token: &str, trust: &Trust) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let certificate = match trust {
            Trust::Front => front.certificate.clone(),
            Trust::SomebodyElse => Front::start().await.certificate,
        };
        fs::write(directory.path().join("ca.pem"), certificate).unwrap();
        fs::write(directory.path().join("token"), token).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tailwater"))
            .args(["serve", "--listen", "127.0.0.1:0", "--s2", "cloud", "--s2-token-file", "token", "--basin", basin])
            .args(["--log", "trace"])
            .current_dir(directory.path())
            .env_clear()
            .envs([("S2_ACCOUNT_ENDPOINT", front.account()), ("S2_BASIN_ENDPOINT", front.basin())])
            .env("SSL_CERT_FILE", "ca.pem")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = Arc::<Mutex<String>>::default();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                *kept.lock().unwrap() += &(line + "\n");
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        timeout(PATIENCE, stdout.read_line(&mut first)).await.unwrap().unwrap();
        let url = first.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("it does not listen: {first:?}"));
        let url = url.to_owned();
        // What it says later is not looked at, but has to go somewhere.
        tokio::spawn(async move { stdout.read_to_end(&mut Vec::new()).await });
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { url, client, log, _child: child, _directory: directory }
    }

    /// A request to a stream of plain text.
    pub(crate) async fn send(&self, method: &str, stream: &str, body: &str) -> Answer {
        self.ask(method, &format!("/v1/stream/{stream}"), body).await
    }

    /// A `GET` of something that is no stream.
    pub(crate) async fn path(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }

    /// Follows a stream from its start.
    pub(crate) async fn follow(&self, stream: &str) -> Reader {
        let response = self.open("GET", &format!("/v1/stream/{stream}?offset=-1&live=sse"), "").await;
        assert_eq!(response.status(), 200);
        Reader { response, text: String::new() }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let response = self.open(method, path, body).await;
        let retry_after = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap().to_bytes();
        Answer { status, retry_after, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    async fn open(&self, method: &str, path: &str, body: &str) -> Response<Incoming> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header(CONTENT_TYPE, "text/plain")
            .body(Full::from(body.to_owned()))
            .unwrap();
        timeout(PATIENCE, self.client.request(request)).await.unwrap().unwrap()
    }
}

impl Answer {
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

impl Reader {
    /// Reads until this text has come.
    pub(crate) async fn until(&mut self, text: &str) {
        while !self.text.contains(text) {
            let frame = timeout(PATIENCE, self.response.body_mut().frame()).await.unwrap().unwrap().unwrap();
            self.text += &frame.into_data().map(|data| String::from_utf8_lossy(&data).into_owned()).unwrap_or_default();
        }
    }
}

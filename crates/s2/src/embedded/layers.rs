//! What stands before the embedded store's router: the token, and the count of what is read.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};

use crate::Secret;

/// The one path that needs no token: whether the store is well says nothing about what is in it.
const HEALTH: &str = "/health";
/// What the answer to a read session is made of: S2's own frames, or server-sent events. A unary read is neither.
const SESSION_TYPES: [&str; 2] = ["s2s/proto", "text/event-stream"];

/// Is told of what is read at the store itself, whoever reads it.
pub trait StoreObserver: Send + Sync + 'static {
    /// A read session was opened.
    fn read_session_opened(&self);
    /// It has ended: its last byte was sent, or its reader is gone.
    fn read_session_closed(&self);
    /// A unary read of records was answered, be it that nothing is there yet. A look at the tail is none.
    fn read(&self) {}
}

/// A token's hash. Hashes compare in constant time, and tokens of any length at the same cost.
#[derive(Clone, Copy)]
pub(super) struct TokenHash(blake3::Hash);

/// Tells the observer of the end when it is dropped.
struct Session(Arc<dyn StoreObserver>);

/// A response's body that keeps a session open for as long as it lives.
struct SessionBody {
    body: Body,
    _session: Session,
}

impl TokenHash {
    pub(super) fn of(token: &Secret) -> Self {
        Self::of_text(token.reveal())
    }

    fn of_text(token: &str) -> Self {
        Self(blake3::hash(token.as_bytes()))
    }

    fn admits(self, request: &Request) -> bool {
        let sent = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, token)) = sent.and_then(|value| value.split_once(' ')) else { return false };
        scheme.eq_ignore_ascii_case("Bearer") && Self::of_text(token.trim()).0 == self.0
    }
}

impl Session {
    fn open(observer: Arc<dyn StoreObserver>) -> Self {
        observer.read_session_opened();
        Self(observer)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.0.read_session_closed();
    }
}

impl HttpBody for SessionBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// The router behind a token (RFC 6750, section 2.1).
pub(super) fn guarded(router: Router, token: TokenHash) -> Router {
    router.layer(middleware::from_fn_with_state(token, demand_token))
}

/// The router with an observer of what is read.
pub(super) fn observed(router: Router, observer: Arc<dyn StoreObserver>) -> Router {
    router.layer(middleware::from_fn_with_state(observer, observe))
}

async fn demand_token(State(token): State<TokenHash>, request: Request, next: Next) -> Response {
    if request.uri().path() == HEALTH || token.admits(&request) {
        return next.run(request).await;
    }
    // S2's own code and form, so that its clients know it for what it is.
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::WWW_AUTHENTICATE, "Bearer")];
    let body = r#"{"code":"authn","message":"this store wants its token"}"#;
    (StatusCode::UNAUTHORIZED, headers, body).into_response()
}

async fn observe(State(observer): State<Arc<dyn StoreObserver>>, request: Request, next: Next) -> Response {
    let reads = request.method() == Method::GET && request.uri().path().ends_with("/records");
    // S2's own frames are asked for by the type of the request, events by what it accepts.
    let unary = ![header::CONTENT_TYPE, header::ACCEPT].iter().any(|name| names_session(request.headers(), name));
    let response = next.run(request).await;
    let answered = response.status().is_success();
    if reads && unary && (answered || response.status() == StatusCode::RANGE_NOT_SATISFIABLE) {
        observer.read();
    }
    if !reads || !answered || !names_session(response.headers(), &header::CONTENT_TYPE) {
        return response;
    }
    let session = Session::open(observer);
    response.map(|body| Body::new(SessionBody { body, _session: session }))
}

fn names_session(headers: &HeaderMap, name: &HeaderName) -> bool {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.is_some_and(|sent| SESSION_TYPES.iter().any(|session| sent.starts_with(session)))
}

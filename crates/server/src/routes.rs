//! Which path and method goes where.
//!
//! Paths of streams are taken raw: the protocol's own rules decide what a path names, and a router that decodes or
//! cleans up paths would get in before them.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, any},
};
use bytes::Bytes;
use futures_util::stream;
use http::{Extensions, HeaderValue, Method, Version, header};
use http_body::Body as _;
use tailwater_upstream::Fault;
use tokio::time::Instant;

use crate::{
    admin,
    admission::{Limit, Peer},
    app::{Ambient, App},
    append,
    cors::{self, Cors},
    create, event_source,
    guard::Auth,
    health,
    host::HostError,
    metrics::{Alive, Route, method_label},
    permit::Permit,
    problem::{Counted, Problem, QUOTA},
    profile,
    quota::Paid,
    read, refuse,
    surface::Surface,
    tickets,
};

/// A path, and what is served there.
type Served = (&'static str, fn() -> MethodRouter<App>);

/// All that is served somewhere. There is no other list: a test asks for what is allowed at each of them.
const SERVED: [Served; 14] = [
    ("/v1/stream/", || any(stream_op)),
    ("/v1/stream/{*path}", || any(stream_op)),
    (tickets::PATH, || any(tickets::post)),
    ("/v1/admin/projects", || any(admin::projects)),
    ("/v1/admin/projects/{project}", || any(admin::project)),
    ("/v1/admin/projects/{project}/keys", || any(admin::keys)),
    ("/v1/admin/projects/{project}/keys/{key}", || any(admin::key)),
    ("/v1/admin/projects/{project}/revocations", || any(admin::revocations)),
    ("/v1/admin/projects/{project}/tokens", || any(admin::tokens)),
    ("/v1/admin/projects/{project}/tokens/inspect", || any(admin::inspect)),
    ("/health", || any(only_get).get(health::live)),
    ("/readyz", || any(only_get).get(health::ready)),
    ("/metrics", || any(only_get).get(health::metrics)),
    ("/debug/profile", || any(only_get).get(profile::profile)),
];

/// All paths that are served somewhere, as patterns.
pub fn paths() -> impl Iterator<Item = &'static str> {
    SERVED.iter().map(|(path, _)| *path)
}

/// The paths of a surface, as patterns.
pub fn paths_of(surface: Surface) -> impl Iterator<Item = &'static str> {
    served_at(surface).map(|(path, _)| *path)
}

/// What is served to clients.
pub fn router(app: App) -> Router {
    let surface = app.config.surface;
    router_of(app, surface)
}

/// What is served at the listeners of a surface.
pub fn router_of(app: App, surface: Surface) -> Router {
    let routes = served_at(surface).fold(Router::new(), |router, (path, served)| router.route(path, served()));
    let observe = middleware::from_fn_with_state((app.clone(), surface), observe);
    routes.fallback(nowhere).layer(observe).with_state(app)
}

fn served_at(surface: Surface) -> impl Iterator<Item = &'static Served> {
    SERVED.iter().filter(move |(path, _)| surface.serves(Route::of(path)))
}

/// What can be done with a stream.
const METHODS_OF_STREAMS: [Method; 5] = [Method::PUT, Method::POST, Method::GET, Method::HEAD, Method::DELETE];

async fn stream_op(State(app): State<App>, request: Request) -> Response {
    let method = request.method().clone();
    if !METHODS_OF_STREAMS.contains(&method) {
        return Problem::method_not_allowed(cors::METHODS).into_response();
    }
    let paid = Observed::paid(request.extensions());
    let (parts, body) = request.into_parts();
    let decided = Permit::decide(&app, &parts).await;
    let entered = decided.and_then(|mut permit| permit.enter(&app, &parts, &body, paid).map(|held| (permit, held)));
    let (permit, held) = match entered {
        Ok(entered) => entered,
        Err(problem) => {
            app.bodies.decline(&parts.headers, body).await;
            return match method {
                Method::GET => event_source::refuse(problem, &parts.headers, app.ambient),
                _ => problem.into_response(),
            };
        }
    };
    let request = Request::from_parts(parts, body);
    // The futures of the operations are large, and most of the time one of them is all that lives.
    let answered = match method {
        Method::PUT => Box::pin(create::put(&app, permit, request)).await,
        Method::POST => Box::pin(append::post(&app, permit, request)).await,
        Method::GET => Box::pin(read::get(&app, permit, request)).await,
        Method::HEAD => Box::pin(read::head(&app, permit)).await,
        Method::DELETE => Box::pin(delete(&app, permit)).await,
        _ => Err(Problem::method_not_allowed(cors::METHODS)),
    };
    let response = answered.unwrap_or_else(IntoResponse::into_response);
    match held {
        Some(held) => held.last_with(response),
        None => response,
    }
}

/// `DELETE` (protocol, section 5.4).
async fn delete(app: &App, permit: Permit) -> Result<Response, Problem> {
    app.gateway.delete(&permit.key).await?;
    Ok(http::StatusCode::NO_CONTENT.into_response())
}

async fn only_get() -> Response {
    Problem::method_not_allowed("GET, HEAD, OPTIONS").into_response()
}

async fn nowhere() -> Response {
    Problem::not_found().into_response()
}

/// A request as it is counted and logged. A long-poll that is answered elsewhere takes it along.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    began: Instant,
    route: Route,
    method: Method,
    version: Version,
    path: String,
    cors: Cors,
    /// Who pays for it, once that is somebody; nobody where everybody may do everything.
    paid: Option<Paid>,
    /// Until it has the head of a response, wherever that is made.
    in_flight: Arc<Alive>,
}

impl Observed {
    fn of(app: &App, surface: Surface, request: &Request) -> Self {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let in_flight = Arc::new(Alive::new(&app.metrics.in_flight));
        let cors = Cors::at(surface, app, &method, request.uri(), request.headers());
        let (route, version) = (surface.seen_as(Route::of(&path)), request.version());
        let paid = match app.config.auth {
            Auth::Open => None,
            Auth::Required(_) => Some(Paid::default()),
        };
        Self { began: Instant::now(), route, method, version, path, cors, paid, in_flight }
    }

    /// Where it is to be said who pays for a request.
    pub(crate) fn paid(extensions: &Extensions) -> Option<Paid> {
        extensions.get::<Self>()?.paid.clone()
    }

    /// Gives a response the headers that every response has, and counts it.
    pub(crate) fn finish(self, app: &App, response: &mut Response) {
        let Self { began, route, method, version, path, cors, paid, in_flight } = self;
        drop(in_flight);
        // Where the path does not tell whose project it is about, the handler does.
        let cors = response.extensions_mut().remove().unwrap_or(cors);
        cors.adorn(response.headers_mut());
        if let Some(payer) = paid.as_ref().and_then(|paid| paid.get()) {
            payer.answered(&method, response);
        }
        spread(app.ambient, response);
        if app.drain.has_begun() && version == Version::HTTP_11 {
            // Whoever comes again is to come to another process. On HTTP/2 the connection says so.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if method == Method::HEAD {
            without_body(response);
        }
        if let Some(problem) = response.extensions().get::<Counted>() {
            app.metrics.failed(*problem);
        }
        let took = began.elapsed();
        app.metrics.answered(route, &method, response.status(), took);
        let method = method_label(&method);
        tracing::debug!(method, path, status = response.status().as_u16(), micros = took.as_micros(), "answered");
    }
}

/// Around everything: preflights, the headers that every response has, and the counting.
async fn observe(State((app, surface)): State<(App, Surface)>, mut request: Request, next: Next) -> Response {
    let observed = Observed::of(&app, surface, &request);
    let is_misnamed = request.extensions().get::<HostError>().is_some();
    let mut response = if observed.method == Method::OPTIONS && !is_misnamed {
        observed.cors.preflight()
    } else {
        request.extensions_mut().insert(observed.clone());
        served(&app, surface, observed.route, request, next).await
    };
    observed.finish(&app, &mut response);
    response
}

/// The answer to a request, which counts among all that are served for as long as it lasts.
async fn served(app: &App, surface: Surface, route: Route, request: Request, next: Next) -> Response {
    let is_probe = match route {
        Route::Health | Route::Ready | Route::Metrics => true,
        Route::Stream | Route::Admin | Route::Profile | Route::Ticket | Route::Other => false,
    };
    // However full it is, it says so; but not to whoever is not told in any case.
    if is_probe && request.extensions().get::<HostError>().is_none() {
        return admitted(app, surface, request, next).await;
    }
    match app.admission_at(surface).serve() {
        Ok(serving) => serving.last_with(admitted(app, surface, request, next).await),
        Err(limit) => refused(app, limit, &request),
    }
}

fn refused(app: &App, limit: Limit, request: &Request) -> Response {
    app.metrics.refused(limit);
    refuse::refusal(app, limit, request.method(), request.headers())
}

/// The answer to a request, which counts as its client's for as long as it lasts where a proxy speaks for the client.
async fn admitted(app: &App, surface: Surface, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    match app.admission_at(surface).admit_request(peer, request.headers()) {
        Ok(None) => let_in(app, request, next).await,
        Ok(Some(place)) => {
            let place = Arc::new(place);
            // For what leaves the HTTP library, and the body with it.
            request.extensions_mut().insert(Arc::clone(&place));
            place.keep_with(let_in(app, request, next).await)
        }
        Err(limit) => refused(app, limit, &request),
    }
}

/// The answer to a request that is let in. One that names no host, or two, has its place like any other: its body may take
/// time.
async fn let_in(app: &App, request: Request, next: Next) -> Response {
    let Some(misnamed) = request.extensions().get::<HostError>().copied() else { return next.run(request).await };
    let (parts, body) = request.into_parts();
    app.bodies.decline(&parts.headers, body).await;
    Problem::from(misnamed).into_response()
}

/// Clients that were refused together are not to come back together: each is told a time of its own, up to about twice
/// what it has to wait for. Not where it is the store that is away: its readers' next events are what those clients
/// bring, and are to be there within two seconds of its return. Until then their requests cost next to nothing. And not
/// where a quota has told each a time already.
fn spread(ambient: Ambient, response: &mut Response) {
    let has_its_own = |problem: &Counted| problem.fault == Fault::Upstream || problem.code == QUOTA;
    if response.extensions().get::<Counted>().is_some_and(has_its_own) {
        return;
    }
    let told = response.headers().get(header::RETRY_AFTER).and_then(|seconds| seconds.to_str().ok());
    let Some(seconds) = told.and_then(|seconds| seconds.parse().ok()) else { return };
    let wait = ambient.between(Duration::from_secs(seconds), Duration::from_secs(2 * seconds + 1));
    response.headers_mut().insert(header::RETRY_AFTER, wait.as_secs().into());
}

/// Keeps the head alone. What `GET` would send has a length that is known for an error and not for a stream, and a
/// `Content-Length` of 0 would be a claim about it (RFC 9110, section 8.6).
fn without_body(response: &mut Response) {
    let length = response.body().size_hint().exact().filter(|length| *length > 0);
    *response.body_mut() = Body::from_stream(stream::empty::<Result<Bytes, Infallible>>());
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use tailwater_fanout::OpError;

    use super::*;
    use crate::drain::Draining;

    fn told(problem: Problem, random: fn() -> u64) -> String {
        let mut response = problem.into_response();
        spread(Ambient { random, now_ms: || 0, secret: |_| {} }, &mut response);
        response.headers()[header::RETRY_AFTER].to_str().unwrap().to_owned()
    }

    #[test]
    fn who_is_refused_is_told_a_time_of_its_own() {
        assert_eq!(told(Draining.into(), || 0), "1");
        assert_eq!(told(Draining.into(), || 750), "2");
    }

    #[test]
    fn who_waits_for_the_store_is_not_told_to_wait_longer() {
        let away = || OpError::Unavailable { retry_after: Some(Duration::from_millis(300)), cause: None };
        assert_eq!(told(away().into(), || 750), "1");
    }
}

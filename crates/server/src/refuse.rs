//! The answer to whoever cannot be let in: a `503` or a `429` with `Retry-After`, and the end of the connection. A plain
//! `EventSource` is told in its own way when to come back.

use std::{
    convert::Infallible,
    future::{Ready, ready},
};

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, Method, Request, header};
use hyper::{body::Incoming, service::Service};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Limit,
    app::App,
    cors::Cors,
    event_source,
    metrics::Route,
    problem::{Counted, Problem},
    surface::Surface,
};

/// Answers every request of a connection with the same refusal, and ends the connection after the first one.
#[derive(Clone)]
pub(crate) struct Refusal {
    pub(crate) app: App,
    /// Of the listener that the connection came to.
    pub(crate) surface: Surface,
    pub(crate) limit: Limit,
    /// Cancelled by the first request.
    pub(crate) asked: CancellationToken,
}

/// The refusal of a request.
pub(crate) fn refusal(app: &App, limit: Limit, method: &Method, headers: &HeaderMap) -> Response {
    let problem = Problem::from(limit);
    if method == Method::GET { event_source::refuse(problem, headers, app.ambient) } else { problem.into_response() }
}

impl Service<Request<Incoming>> for Refusal {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let began = Instant::now();
        self.asked.cancel();
        let mut response = refusal(&self.app, self.limit, request.method(), request.headers());
        let cors = Cors::at(self.surface, &self.app, request.method(), request.uri(), request.headers());
        cors.adorn(response.headers_mut());
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        let metrics = &self.app.metrics;
        if let Some(problem) = response.extensions().get::<Counted>() {
            metrics.failed(*problem);
        }
        let route = self.surface.seen_as(Route::of(request.uri().path()));
        metrics.answered(route, request.method(), response.status(), began.elapsed());
        ready(Ok(response))
    }
}

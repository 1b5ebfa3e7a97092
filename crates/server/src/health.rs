//! What orchestrators and monitors ask.

use axum::{extract::State, response::Response};
use http::{HeaderValue, StatusCode, header};
use prometheus::{TEXT_FORMAT, TextEncoder};

use tailwater_register::Standing;

use crate::{app::App, drain::Draining, guard::Auth, problem::Problem};

/// The process runs. It says nothing about the store: to restart the process would not mend that.
pub(crate) async fn live() -> Response {
    text(StatusCode::OK, "ok\n".to_owned())
}

/// New requests are welcome: the store answers, and the process is not about to end.
pub(crate) async fn ready(State(app): State<App>) -> Result<Response, Problem> {
    if app.drain.is_announced() {
        return Err(Draining.into());
    }
    if let Some(traffic) = app.gateway.suspended() {
        return Err(Problem::store_left_alone(traffic));
    }
    if !app.readiness.store_answers(&app.gateway).await {
        return Err(Problem::store_silent());
    }
    match &app.config.auth {
        // Who does not know who was revoked of late is not to be asked, where another one is.
        Auth::Required(guard) => match guard.register_standing() {
            None | Some(Standing::Current) => {}
            Some(standing) => return Err(Problem::register_stands(standing)),
        },
        Auth::Open => {}
    }
    Ok(text(StatusCode::OK, "ready\n".to_owned()))
}

/// The metrics, as Prometheus reads them.
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    if let Auth::Required(guard) = &app.config.auth {
        // It changes by itself as time passes, so it is looked at when it is asked for.
        guard.register_standing();
    }
    match TextEncoder::new().encode_to_string(&app.registry.gather()) {
        Ok(encoded) => {
            let mut response = text(StatusCode::OK, encoded);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
            response
        }
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be encoded");
            text(StatusCode::INTERNAL_SERVER_ERROR, String::new())
        }
    }
}

fn text(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

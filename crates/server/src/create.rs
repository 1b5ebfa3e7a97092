//! `PUT`: create a stream, or make sure that it exists as described (protocol, sections 4.2 and 5.1).

use axum::{extract::Request, response::Response};
use bytes::Bytes;
use http::{StatusCode, header};
use tailwater_fanout::{Create, ForkError, ForkFrom, ForkPoint, OpError};
use tailwater_log::{Refusal, Visibility};
use tailwater_protocol::{ContentKind, ContentType, ForkOffset, ForkRequest, json};
use tailwater_upstream::StreamKey;

use crate::{
    answer,
    app::App,
    config::Config,
    location::{self, LocalAddress},
    problem::Problem,
    request::{Fields, fork_source, stream_key},
};

pub(crate) async fn put(app: &App, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let key = stream_key(&parts.uri, &app.config)?;
    let fields = Fields(&parts.headers);
    let content_type = fields.content_type()?;
    let lifetime = fields.lifetime()?;
    let closed = fields.closes()?;
    let fork = fields.fork()?.map(|fork| fork_from(&fork, &app.config)).transpose()?;

    if let Err(refused) = app.gateway.takes_writes(&key) {
        app.bodies.decline(&parts.headers, body).await;
        return Err(refused.into());
    }
    let body = app.bodies.receive(&parts.headers, body).await?;
    app.metrics.received.inc_by(body.bytes.len() as u64);
    let messages = match body.bytes.is_empty() {
        true => Vec::new(),
        false => split(kind_of(app, &key, content_type.as_ref(), fork.as_ref()).await?, &body.bytes)?,
    };

    let create = Create { content_type, lifetime, visibility: Visibility::Public, messages, closed, fork };
    let created = app.gateway.create(&key, create).await?;

    let mut response = answer::empty(if created.fresh { StatusCode::CREATED } else { StatusCode::OK });
    let headers = response.headers_mut();
    answer::set_content_type(headers, &created.head.content_type);
    answer::set_next_offset(headers, created.head.tail);
    answer::set_closed(headers, created.head.closed);
    if created.fresh {
        let local = parts.extensions.get::<LocalAddress>().copied();
        let url = location::of_request(app.config.public_url.as_ref(), &parts.uri, &parts.headers, local);
        headers.insert(header::LOCATION, url);
    }
    Ok(response)
}

fn fork_from(request: &ForkRequest, config: &Config) -> Result<ForkFrom, Problem> {
    let at = match request.offset {
        None => ForkPoint::Tail,
        Some(ForkOffset::Start) => ForkPoint::Start,
        Some(ForkOffset::At(offset)) => ForkPoint::At(offset),
    };
    Ok(ForkFrom { source: fork_source(&request.source, config)?, at, sub_offset: request.sub_offset })
}

/// How the body is to be read. A fork that names no content type has its source's.
async fn kind_of(
    app: &App,
    key: &StreamKey,
    declared: Option<&ContentType>,
    fork: Option<&ForkFrom>,
) -> Result<ContentKind, Problem> {
    let Some(fork) = fork else {
        return Ok(declared.map_or(ContentKind::Binary, ContentType::kind));
    };
    if let Some(declared) = declared {
        return Ok(declared.kind());
    }
    let refusal = match app.gateway.head(&fork.source).await {
        Ok(source) => return Ok(source.content_type.kind()),
        Err(OpError::Refused(refusal)) => refusal,
        Err(error) => return Err(error.into()),
    };
    // A fork that exists already may outlive its source; to make sure that it exists is still allowed.
    match app.gateway.head(key).await {
        Ok(existing) => Ok(existing.content_type.kind()),
        Err(_) if refusal == Refusal::SoftDeleted => Err(OpError::from(ForkError::SourceDeleted).into()),
        Err(_) => Err(OpError::from(ForkError::SourceNotFound).into()),
    }
}

/// The messages of a body that is not empty. A `PUT` may have none in its array.
pub(crate) fn split(kind: ContentKind, body: &Bytes) -> Result<Vec<Bytes>, Problem> {
    match kind {
        ContentKind::Json => Ok(json::split(body)?),
        ContentKind::Text | ContentKind::Binary => Ok(vec![body.clone()]),
    }
}

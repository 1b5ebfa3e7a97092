//! `PUT`: create a stream, or make sure that it exists as described (protocol, sections 4.2 and 5.1).

use axum::{extract::Request, response::Response};
use bytes::Bytes;
use http::{StatusCode, header};
use tailwater_fanout::{Create, ForkError, ForkFrom, ForkPoint, OpError, SourceAccess};
use tailwater_log::Refusal;
use tailwater_protocol::{ContentKind, ContentType, ForkOffset, ForkRequest, json};
use tailwater_upstream::StreamKey;

use crate::{
    answer,
    app::App,
    config::Config,
    location::{self, LocalAddress},
    permit::{Permit, Sight},
    problem::Problem,
    request::{Fields, fork_source, key_of},
};

pub(crate) async fn put(app: &App, permit: Permit, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let key = &permit.key;
    let fields = Fields(&parts.headers);
    let content_type = fields.content_type()?;
    let lifetime = fields.lifetime()?;
    let closed = fields.closes()?;
    let visibility = permit.new_visibility(fields.visibility()?);
    let fork = fields.fork()?.map(|fork| fork_from(&fork, &permit, &app.config)).transpose()?;
    let (fork, sight) = fork.unzip();

    let body = permit.receive(app, &parts.headers, body).await?;
    let messages = match body.bytes.is_empty() {
        true => Vec::new(),
        false => split(kind_of(app, key, content_type.as_ref(), fork.as_ref().zip(sight)).await?, &body.bytes)?,
    };

    let create = Create { content_type, lifetime, visibility, messages, closed, fork };
    let created = match (app.gateway.create(key, create).await, sight) {
        (Ok(created), _) => created,
        (Err(error), Some(sight)) => return Err(sight.failed(error)),
        (Err(error), None) => return Err(error.into()),
    };

    let mut response = answer::empty(if created.fresh { StatusCode::CREATED } else { StatusCode::OK });
    let headers = response.headers_mut();
    answer::set_content_type(headers, &created.head.content_type);
    answer::set_next_offset(headers, created.head.tail);
    answer::set_closed(headers, created.head.closed);
    answer::set_visibility(headers, created.head.visibility);
    if created.fresh {
        let local = parts.extensions.get::<LocalAddress>().copied();
        let url = location::of_request(app.config.public_url.as_ref(), &parts.uri, &parts.headers, local);
        headers.insert(header::LOCATION, url);
    }
    Ok(response)
}

fn fork_from(request: &ForkRequest, permit: &Permit, config: &Config) -> Result<(ForkFrom, Sight), Problem> {
    let at = match request.offset {
        None => ForkPoint::Tail,
        Some(ForkOffset::Start) => ForkPoint::Start,
        Some(ForkOffset::At(offset)) => ForkPoint::At(offset),
    };
    let source = fork_source(&request.source, config)?;
    let sight = permit.sight_of(&source)?;
    let from = ForkFrom { source: key_of(&source), access: sight.access, at, sub_offset: request.sub_offset };
    Ok((from, sight))
}

/// How the body is to be read. A fork that names no content type has its source's.
async fn kind_of(
    app: &App,
    key: &StreamKey,
    declared: Option<&ContentType>,
    fork: Option<(&ForkFrom, Sight)>,
) -> Result<ContentKind, Problem> {
    let Some((fork, sight)) = fork else {
        return Ok(declared.map_or(ContentKind::Binary, ContentType::kind));
    };
    if let Some(declared) = declared {
        return Ok(declared.kind());
    }
    let refusal = match app.gateway.head(&fork.source).await {
        Ok(source) if sight.reaches(&source) => return Ok(source.content_type.kind()),
        Err(OpError::Refused(refusal)) if sight.access == SourceAccess::Any => refusal,
        Ok(_) | Err(OpError::Refused(_) | OpError::Unreadable { .. }) => Refusal::NotFound,
        Err(error) => return Err(error.into()),
    };
    // A fork that exists already may outlive its source; to make sure that it exists is still allowed.
    match app.gateway.head(key).await {
        Ok(existing) => Ok(existing.content_type.kind()),
        Err(_) if refusal == Refusal::SoftDeleted => Err(OpError::from(ForkError::SourceDeleted).into()),
        Err(_) => Err(sight.failed(ForkError::SourceNotFound.into())),
    }
}

/// The messages of a body that is not empty. A `PUT` may have none in its array.
pub(crate) fn split(kind: ContentKind, body: &Bytes) -> Result<Vec<Bytes>, Problem> {
    match kind {
        ContentKind::Json => Ok(json::split(body)?),
        ContentKind::Text | ContentKind::Binary => Ok(vec![body.clone()]),
    }
}

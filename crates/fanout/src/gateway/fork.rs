//! Forks: one `ref` in the source's log, then the `open` of the fork, which names all that it inherits.
//!
//! | order | a crash behind it leaves | who finishes it |
//! |---|---|---|
//! | `ref` in the source | a reference without a fork: the source's data stays after its deletion | the sweep, which looks at the references of soft-deleted sources |
//! | `open` of the fork | the whole fork | – |
//! | a last look at the `ref`, before `201` | the whole fork | – |

use bytes::Bytes;
use tailwater_log::{
    ConfigField, Content, CreateRequest, DeclaredConfig, DeclaredFork, Fork, MAX_FORK_DEPTH, Open, Reference, Refusal,
    StreamState, Visibility,
};
use tailwater_protocol::{ContentKind, Offset, ReadOffset, json};
use tailwater_upstream::StreamKey;

use super::{Gateway, misplaced_fork};
use crate::{
    actor::{Chore, Look, LookAt, Message, place_of, stream_name},
    history::Hole,
    ops::{Create, Created, ForkError, ForkFrom, ForkPoint, Head, OpError, SourceAccess},
};

/// How a fork from the very start is written down: the source's own first offset may be trimmed away later.
const START: Offset = Offset { birth: 0, seq: 0 };

/// Where a fork branches off.
struct Branch {
    at: Offset,
    /// What is inherited of the message in which the fork point lies.
    partial: Option<Bytes>,
}

impl Gateway {
    pub(super) async fn create_fork(
        &self,
        key: &StreamKey,
        create: Create,
        from: ForkFrom,
    ) -> Result<Created, OpError> {
        let declared = declare(&create, &from);
        let placeholder = CreateRequest {
            open: blank_open(&create, self.config().chance.number()),
            content: Content::Messages(Vec::new()),
            closed: create.closed,
        };
        // What exists is compared, not created: nothing is referred to for its sake.
        match self.put(key, &declared, &placeholder, true).await {
            Err(OpError::Refused(Refusal::NotFound)) => {}
            answer => return answer,
        }
        if from.access == SourceAccess::Public {
            // Before it is used: to be used keeps a stream alive.
            let seen = self.look(&from.source, LookAt::Head).await.map_err(unseen)?;
            if Head::of(&seen.view, self.config()).visibility != Visibility::Public {
                return Err(ForkError::SourceNotFound.into());
            }
        }
        let Look { view, .. } =
            self.look(&from.source, LookAt::Read(ReadOffset::Now)).await.map_err(|error| match from.access {
                SourceAccess::Any => of_source(error),
                SourceAccess::Public => unseen(error),
            })?;
        let source = Head::of(&view, self.config());
        if from.access == SourceAccess::Public && source.visibility != Visibility::Public {
            return Err(ForkError::SourceNotFound.into());
        }
        let other_type = |declared: &tailwater_protocol::ContentType| !declared.same_media_type(&source.content_type);
        if create.content_type.as_ref().is_some_and(other_type) {
            return Err(OpError::Conflict { field: ConfigField::ContentType });
        }
        let branch = self.branch(&view, source.content_type.kind(), &from).await?;
        let chain = view.inherited_before(branch.at, &stream_name(&from.source));
        if chain.len() > MAX_FORK_DEPTH {
            return Err(ForkError::TooDeep.into());
        }
        let open = Open {
            content_type: create.content_type.clone().unwrap_or_else(|| source.content_type.clone()),
            lifetime: create.lifetime.unwrap_or(source.lifetime),
            visibility: create.visibility.of_fork(source.visibility),
            fork: Some(Fork {
                source: stream_name(&from.source),
                incarnation: view.incarnation().map_or(0, |life| life.open.incarnation),
                at: if from.at == ForkPoint::Start { START } else { anchor(&from, branch.at) },
                sub_offset: from.sub_offset,
                chain,
            }),
            ..placeholder.open
        };
        let messages = branch.partial.into_iter().chain(create.messages).collect();
        let request = CreateRequest { open, content: Content::Messages(messages), closed: create.closed };
        let life = view.incarnation().map(|life| life.open.incarnation);
        self.refer_and_open(key, (&from.source, life), &declared, &request).await
    }

    async fn refer_and_open(
        &self,
        key: &StreamKey,
        (source, life): (&StreamKey, Option<u64>),
        declared: &DeclaredConfig,
        request: &CreateRequest,
    ) -> Result<Created, OpError> {
        let reference = Reference { incarnation: request.open.incarnation, fork: stream_name(key) };
        let refer = |reply| Message::Refer { reference: reference.clone(), life, reply };
        self.ask(source, refer).await.map_err(of_source)?;
        let created = self.put_listed(key, declared, request).await;
        let keeps = match &created {
            Ok(created) => created.fresh,
            // It may yet land, and would need its source.
            Err(OpError::OutcomeUnknown) => true,
            Err(_) => false,
        };
        if keeps && created.is_ok() {
            self.look_again(key, source, &reference).await?;
        }
        if !keeps {
            let chore = Chore::Release { source: source.clone(), reference };
            if self.inner.chores.try_send(chore).is_err() {
                tracing::warn!(stream = %source, "a reference is left behind");
            }
        }
        created
    }

    /// A sweep that met the `ref` before the `open` may have let go of it; such a fork must not be.
    async fn look_again(&self, key: &StreamKey, source: &StreamKey, reference: &Reference) -> Result<(), OpError> {
        // From here on the fork exists: that it could not be looked after is no refusal.
        let unknown = |_| OpError::OutcomeUnknown;
        let references = self.ask_owed(source, |reply| Message::References { reply }).await.map_err(unknown)?;
        if references.iter().any(|held| held.incarnation == reference.incarnation) {
            return Ok(());
        }
        self.delete(key).await.map_err(unknown)?;
        Err(OpError::Unavailable { retry_after: None, cause: None })
    }

    /// Finds the fork point, and what is inherited of the message that it lies in.
    async fn branch(&self, view: &StreamState, kind: ContentKind, from: &ForkFrom) -> Result<Branch, OpError> {
        let place = match from.at {
            ForkPoint::Tail => place_of(view, ReadOffset::Now),
            ForkPoint::Start => place_of(view, ReadOffset::Start),
            ForkPoint::At(offset) => place_of(view, ReadOffset::At(offset)),
        };
        let mut place = place.map_err(misplaced_fork)?;
        let mut left = from.sub_offset;
        if left == 0 {
            let at = match from.at {
                ForkPoint::At(offset) => offset,
                ForkPoint::Tail | ForkPoint::Start => view.offset_at(place),
            };
            return Ok(Branch { at, partial: None });
        }
        let history = self.history(&from.source);
        while view.span_at(place).is_some() {
            let page = history.page(view, kind, place, Hole::Refuse).await?;
            for (body, at) in page.messages {
                let size = size(kind, &body);
                if left < size {
                    let partial = Some(first_of(kind, &body, left));
                    return Ok(Branch { at: view.offset_at(at), partial });
                }
                left -= size;
                if left == 0 {
                    return Ok(Branch { at: view.offset_at(view.after(at, at.seq + 1)), partial: None });
                }
            }
            place = page.place;
        }
        Err(ForkError::SubOffset.into())
    }
}

fn declare(create: &Create, from: &ForkFrom) -> DeclaredConfig {
    let at = match from.at {
        ForkPoint::Tail => None,
        ForkPoint::Start => Some(START),
        ForkPoint::At(offset) => Some(offset),
    };
    DeclaredConfig {
        content_type: create.content_type.clone(),
        lifetime: create.lifetime,
        closed: create.closed,
        visibility: create.visibility.declared(),
        fork: Some(DeclaredFork { source: stream_name(&from.source), at, sub_offset: from.sub_offset }),
    }
}

fn blank_open(create: &Create, incarnation: u64) -> Open {
    Open {
        incarnation,
        content_type: create.content_type.clone().unwrap_or_else(tailwater_protocol::ContentType::default_binary),
        lifetime: create.lifetime.unwrap_or(tailwater_protocol::Lifetime::Forever),
        visibility: create.visibility.plain(),
        retention_ms: None,
        adopts_native: false,
        fork: None,
    }
}

/// What the client named, so that the same PUT again is recognised; else what it came to.
fn anchor(from: &ForkFrom, at: Offset) -> Offset {
    match from.at {
        ForkPoint::At(offset) => offset,
        ForkPoint::Tail | ForkPoint::Start => at,
    }
}

/// What a sub-offset counts: messages of a JSON stream, bytes of any other.
fn size(kind: ContentKind, body: &Bytes) -> u64 {
    match kind {
        ContentKind::Json => json::split_values(body).len() as u64,
        ContentKind::Text | ContentKind::Binary => body.len() as u64,
    }
}

fn first_of(kind: ContentKind, body: &Bytes, count: u64) -> Bytes {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    match kind {
        ContentKind::Json => {
            let values = json::split_values(body);
            let mut joined = Vec::new();
            for value in values.iter().take(count) {
                if !joined.is_empty() {
                    joined.push(b',');
                }
                joined.extend_from_slice(value);
            }
            Bytes::from(joined)
        }
        ContentKind::Text | ContentKind::Binary => body.slice(..count.min(body.len())),
    }
}

fn of_source(error: OpError) -> OpError {
    if matches!(error, OpError::Refused(Refusal::NotFound)) {
        return ForkError::SourceNotFound.into();
    }
    if matches!(error, OpError::Refused(Refusal::SoftDeleted)) {
        return ForkError::SourceDeleted.into();
    }
    error
}

/// What the author of a fork is told of a source that may not be seen: nothing that depends on what is there.
fn unseen(error: OpError) -> OpError {
    if matches!(error, OpError::Refused(_) | OpError::Unreadable { .. }) {
        ForkError::SourceNotFound.into()
    } else {
        error
    }
}

//! S2's terms into the gateway's: records, positions, and every error of its library.
//!
//! The rule for errors: an append error that says "nothing was appended" is only made from an answer that guarantees
//! it. Where an earlier attempt may have landed, the last attempt's answer proves nothing.

use std::time::Duration;

use s2_sdk::{
    error::{
        AppendConditionFailed, AppendError as SdkAppendError, ClientError, ErrorCode, ReadError as SdkReadError,
        ReadSessionError, RequestError, ServerError,
    },
    types::{
        AppendAck as SdkAck, AppendInput, AppendRecord, AppendRecordBatch, Header as SdkHeader, SequencedRecord,
        StreamPosition, ValidationError,
    },
};
use tailwater_log::{Header, NewRecord, Record};
use tailwater_upstream::{Append, AppendAck, AppendError, Cause, Fate, Position, ReadError};

/// An operation that was not answered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {within:?}")]
pub(crate) struct TimedOut {
    /// How long it was waited for.
    pub(crate) within: Duration,
}

/// What a failed request means, whatever it was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The basin or the stream does not exist.
    Missing,
    /// The basin or the stream is being deleted.
    Deleting,
    /// Not now, and nothing happened.
    Busy,
    /// Not answered, or not as it should be.
    Failed,
    /// Not like this.
    Refused,
}

/// The batch as the SDK takes it; refused where S2 would not take it.
pub(crate) fn append_input(append: Append) -> Result<AppendInput, AppendError> {
    let records = append.records.into_iter().map(append_record).collect::<Result<Vec<_>, _>>().map_err(refused)?;
    let mut input = AppendInput::new(AppendRecordBatch::try_from_iter(records).map_err(refused)?);
    if let Some(seq) = append.match_seq {
        input = input.with_match_seq_num(seq);
    }
    if let Some(token) = append.token {
        input = input.with_fencing_token(token.parse().map_err(refused)?);
    }
    Ok(input)
}

pub(crate) fn refused(cause: impl Into<Cause>) -> AppendError {
    AppendError::Refused { cause: cause.into() }
}

pub(crate) fn ack(ack: &SdkAck) -> AppendAck {
    AppendAck { start: position(ack.start), end: position(ack.end) }
}

pub(crate) fn position(position: StreamPosition) -> Position {
    Position { seq: position.seq_num, timestamp: position.timestamp }
}

pub(crate) fn records(records: Vec<SequencedRecord>) -> Vec<Record> {
    records.into_iter().map(record).collect()
}

/// Whether an append was refused because there is no such stream, after no attempt that may have had an effect.
pub(crate) fn is_missing_stream(error: &SdkAppendError) -> bool {
    matches!(error, SdkAppendError::Request(error) if is_code(error, ErrorCode::StreamNotFound))
}

pub(crate) fn append_error(error: SdkAppendError) -> AppendError {
    match error {
        SdkAppendError::ConditionFailed(AppendConditionFailed::SeqNumMismatch(actual)) => {
            AppendError::SeqMismatch { actual }
        }
        SdkAppendError::ConditionFailed(AppendConditionFailed::FencingTokenMismatch(actual)) => {
            AppendError::TokenMismatch { actual: actual.to_string() }
        }
        SdkAppendError::Request(request) => failed_append(request),
        // The attempt before the last may have landed, and then the last one's answer is about its own doing.
        other @ (SdkAppendError::IndefiniteFailure { .. } | SdkAppendError::ConditionFailed(_) | _) => {
            let fate = if other.has_no_side_effects() { Fate::NotAppended } else { Fate::Unknown };
            AppendError::Unavailable { fate, cause: other.into() }
        }
    }
}

/// What a request that failed means for the append that it was, or was needed for.
pub(crate) fn failed_append(error: RequestError) -> AppendError {
    match classify(&error) {
        Class::Deleting => AppendError::DeletionPending,
        Class::Busy => AppendError::Busy { retry_after: None },
        Class::Failed => {
            let fate = if error.has_no_side_effects() { Fate::NotAppended } else { Fate::Unknown };
            AppendError::Unavailable { fate, cause: error.into() }
        }
        Class::Missing | Class::Refused => refused(error),
    }
}

/// What a read's failure means; `None` where the place that was asked for is not written yet.
pub(crate) fn read_error(error: SdkReadError) -> Option<ReadError> {
    match error {
        SdkReadError::ReadUnwritten(_) => None,
        SdkReadError::Request(request) => Some(request_error(request)),
        other => Some(ReadError::Unavailable { cause: other.into() }),
    }
}

/// What the end of a read session means. A session that starts beyond the tail follows a log that is no more: the
/// stream was reaped and created anew.
pub(crate) fn session_error(error: ReadSessionError) -> ReadError {
    match error {
        ReadSessionError::Read(error) => read_error(error).unwrap_or(ReadError::NotFound),
        other @ (ReadSessionError::HeartbeatTimeout | _) => ReadError::Unavailable { cause: other.into() },
    }
}

pub(crate) fn request_error(error: RequestError) -> ReadError {
    match classify(&error) {
        // What is being deleted holds nothing any more.
        Class::Missing | Class::Deleting => ReadError::NotFound,
        Class::Busy => ReadError::Busy { retry_after: None },
        Class::Failed => ReadError::Unavailable { cause: error.into() },
        Class::Refused => ReadError::Refused { cause: error.into() },
    }
}

/// Whether a request failed with this code, sent with the status that belongs to it.
pub(crate) fn is_code(error: &RequestError, code: ErrorCode) -> bool {
    error.server_error().and_then(known_code) == Some(code)
}

fn append_record(record: NewRecord) -> Result<AppendRecord, ValidationError> {
    let headers = record.headers.into_iter().map(|h| SdkHeader::new(h.name, h.value));
    AppendRecord::new(record.body)?.with_headers(headers)
}

fn record(record: SequencedRecord) -> Record {
    let headers = record.headers.into_iter().map(|h| Header { name: h.name, value: h.value }).collect();
    Record { seq: record.seq_num, timestamp: record.timestamp, headers, body: record.body }
}

fn classify(error: &RequestError) -> Class {
    match error {
        RequestError::Server(server) => classify_server(server),
        RequestError::Client(
            ClientError::Configuration(_) | ClientError::RequestBuild(_) | ClientError::RequestCompression(_),
        )
        | RequestError::MalformedAccessToken(_)
        | RequestError::Validation(_) => Class::Refused,
        RequestError::Client(_) | _ => Class::Failed,
    }
}

fn classify_server(error: &ServerError) -> Class {
    let Some(code) = known_code(error) else { return classify_status(error.status.as_u16()) };
    match code {
        ErrorCode::BasinNotFound | ErrorCode::StreamNotFound => Class::Missing,
        ErrorCode::BasinDeletionPending | ErrorCode::StreamDeletionPending => Class::Deleting,
        ErrorCode::HotServer | ErrorCode::RateLimited | ErrorCode::ServerDraining | ErrorCode::TransactionConflict => {
            Class::Busy
        }
        ErrorCode::ClientHangup
        | ErrorCode::Other
        | ErrorCode::RequestTimeout
        | ErrorCode::Storage
        | ErrorCode::Unavailable
        | ErrorCode::UpstreamTimeout => Class::Failed,
        ErrorCode::AccessTokenNotFound
        | ErrorCode::Authn
        | ErrorCode::BadFrame
        | ErrorCode::BadHeader
        | ErrorCode::BadJson
        | ErrorCode::BadPath
        | ErrorCode::BadProto
        | ErrorCode::BadQuery
        | ErrorCode::DecryptionFailed
        | ErrorCode::Invalid
        | ErrorCode::NotImplemented
        | ErrorCode::PermissionDenied
        | ErrorCode::QuotaExhausted
        | ErrorCode::ResourceAlreadyExists => Class::Refused,
        _ => classify_status(error.status.as_u16()),
    }
}

/// For answers that S2 does not document, from it or from something in between.
fn classify_status(status: u16) -> Class {
    match status {
        429 => Class::Busy,
        408 | 500.. => Class::Failed,
        _ => Class::Refused,
    }
}

/// A code that comes with another status than its own proves nothing.
fn known_code(error: &ServerError) -> Option<ErrorCode> {
    error.known_code().filter(|code| code.status() == error.status)
}

#[cfg(test)]
mod tests {
    use s2_sdk::error::StatusCode;

    use super::*;

    fn transport(error: ClientError) -> RequestError {
        RequestError::Client(error)
    }

    #[test]
    fn a_condition_that_failed_says_what_is_in_force() {
        let seq = SdkAppendError::ConditionFailed(AppendConditionFailed::SeqNumMismatch(7));
        assert!(matches!(append_error(seq), AppendError::SeqMismatch { actual: 7 }));
    }

    #[test]
    fn a_condition_that_failed_after_an_uncertain_attempt_proves_nothing() {
        let last = SdkAppendError::ConditionFailed(AppendConditionFailed::SeqNumMismatch(7));
        let error = append_error(SdkAppendError::IndefiniteFailure { final_attempt_error: Box::new(last) });
        assert!(matches!(error, AppendError::Unavailable { fate: Fate::Unknown, .. }));
    }

    #[test]
    fn the_fate_of_an_append_follows_from_how_far_it_got() {
        let fate = |error| append_error(SdkAppendError::Request(transport(error))).fate();
        assert_eq!(fate(ClientError::ConnectionRefused(String::new())), Fate::NotAppended);
        assert_eq!(fate(ClientError::Connect(String::new())), Fate::NotAppended);
        assert_eq!(fate(ClientError::Timeout), Fate::Unknown);
        assert_eq!(fate(ClientError::ConnectionClosedEarly(String::new())), Fate::Unknown);
        assert_eq!(fate(ClientError::ResponseDecode(String::new())), Fate::Unknown);
    }

    #[test]
    fn what_the_client_cannot_even_send_is_refused() {
        let error = || transport(ClientError::RequestBuild(String::new()));
        assert!(matches!(failed_append(error()), AppendError::Refused { .. }));
        assert!(matches!(request_error(error()), ReadError::Refused { .. }));
    }

    #[test]
    fn undocumented_answers_are_judged_by_their_status() {
        let class = |status: StatusCode| classify_status(status.as_u16());
        assert_eq!(class(StatusCode::TOO_MANY_REQUESTS), Class::Busy);
        assert_eq!(class(StatusCode::REQUEST_TIMEOUT), Class::Failed);
        assert_eq!(class(StatusCode::BAD_GATEWAY), Class::Failed);
        assert_eq!(class(StatusCode::FORBIDDEN), Class::Refused);
    }

    #[test]
    fn a_read_at_the_tail_is_no_error_and_a_session_beyond_it_has_lost_its_log() {
        let unwritten = || SdkReadError::ReadUnwritten(StreamPosition::new(3, 0));
        assert!(read_error(unwritten()).is_none());
        assert!(matches!(session_error(ReadSessionError::Read(unwritten())), ReadError::NotFound));
    }

    #[test]
    fn a_batch_that_s2_would_not_take_is_refused_before_it_is_sent() {
        let too_many = vec![NewRecord::default(); 1001];
        let long_token = Append { token: Some("t".repeat(37)), ..Append::new(vec![NewRecord::default()]) };
        for append in [Append::new(Vec::new()), Append::new(too_many), long_token] {
            assert!(matches!(append_input(append), Err(AppendError::Refused { .. })));
        }
    }
}

//! A complete response as bytes of HTTP/1.1 (RFC 9112, sections 4 and 5), for a connection that is not at the HTTP library.
//!
//! Only what answers a long-poll is written here: a response whose body is at hand. Its head is the one that the HTTP
//! library would write, field by field; a test holds them against each other.

use std::time::SystemTime;

use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;

/// Spells a response out.
pub(crate) async fn spell(response: Response) -> Result<Bytes, axum::Error> {
    let (mut parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    let has_length = parts.headers.contains_key(header::CONTENT_LENGTH);
    // Neither has a body, and the length of what a 304 stands for is not known here (RFC 9110, section 8.6).
    let bodiless = matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !has_length && !bodiless {
        parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
    }
    if !parts.headers.contains_key(header::DATE) {
        let date = httpdate::fmt_http_date(SystemTime::now());
        parts.headers.insert(header::DATE, HeaderValue::try_from(date).expect("a date is visible ASCII"));
    }
    let mut out = BytesMut::with_capacity(1024 + body.len());
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(parts.status.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(parts.status.canonical_reason().unwrap_or_default().as_bytes());
    for (name, value) in &parts.headers {
        out.put_slice(b"\r\n");
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
    }
    out.put_slice(b"\r\n\r\n");
    if !bodiless {
        out.put_slice(&body);
    }
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::{body::Body, response::IntoResponse as _};
    use http::{HeaderName, Request};
    use hyper::{body::Incoming, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// What the HTTP library makes of a response.
    async fn served(respond: impl Fn() -> Response) -> Vec<u8> {
        let (ours, mut client) = duplex(1 << 16);
        let service = service_fn(|_: Request<Incoming>| async { Ok::<_, Infallible>(respond()) });
        let connection = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(ours), service);
        let ask = async {
            client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let (served, answer) = tokio::join!(connection, ask);
        served.unwrap();
        answer
    }

    /// The first line, the fields in the order of their names, the time left out, and the body.
    fn parts(answer: &[u8]) -> (String, Vec<String>, Vec<u8>) {
        let end = answer.windows(4).position(|at| at == b"\r\n\r\n").expect("a head");
        // Fields may hold bytes that are no UTF-8; each byte is a character here.
        let head: String = answer[..end].iter().copied().map(char::from).collect();
        let mut lines = head.split("\r\n").map(str::to_owned);
        let first = lines.next().unwrap();
        let (dates, mut fields): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with("date: "));
        assert_eq!(dates.len(), 1, "{head}");
        fields.sort();
        (first, fields, answer[end + 4..].to_vec())
    }

    #[tokio::test]
    async fn a_response_is_spelt_as_the_http_library_spells_it() {
        type Fields = &'static [(&'static str, &'static [u8])];
        let plain: Fields = &[("content-type", b"text/plain"), ("etag", b"\"a\""), ("stream-cursor", b"7")];
        let twice: Fields = &[("vary", b"a"), ("vary", b"b"), ("x-empty", b""), ("x-bytes", b"\xe9\xff\tz")];
        let odd: Fields = &[("content-length", b"3"), ("cache-control", b"no-store")];
        let table: [(StatusCode, Fields, &'static str); 11] = [
            (StatusCode::OK, plain, "abc"),
            (StatusCode::OK, plain, ""),
            (StatusCode::OK, odd, "abc"),
            (StatusCode::OK, twice, "0\r\n\r\n"),
            (StatusCode::NO_CONTENT, plain, ""),
            (StatusCode::NO_CONTENT, twice, ""),
            (StatusCode::NOT_MODIFIED, plain, ""),
            (StatusCode::NOT_MODIFIED, &[], ""),
            (StatusCode::GONE, odd, "abc"),
            (StatusCode::GONE, plain, "{}"),
            (StatusCode::SERVICE_UNAVAILABLE, &[("retry-after", b"1")], "{}"),
        ];
        for (status, fields, body) in table {
            let respond = || {
                let mut response = Response::new(if body.is_empty() { Body::empty() } else { Body::from(body) });
                *response.status_mut() = status;
                for (name, value) in fields {
                    let value = HeaderValue::from_bytes(value).unwrap();
                    response.headers_mut().append(HeaderName::from_static(name), value);
                }
                response
            };
            let spelt = spell(respond()).await.unwrap();
            assert_eq!(parts(&spelt), parts(&served(respond).await), "{status} {fields:?} {body:?}");
        }
    }

    async fn spelt(mut response: Response) -> String {
        response.headers_mut().insert(header::DATE, HeaderValue::from_static("D"));
        String::from_utf8(spell(response).await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_response_has_a_length_unless_it_can_have_no_body() {
        let table = [
            (StatusCode::OK, "abc", "HTTP/1.1 200 OK\r\ndate: D\r\ncontent-length: 3\r\n\r\nabc"),
            (StatusCode::OK, "", "HTTP/1.1 200 OK\r\ndate: D\r\ncontent-length: 0\r\n\r\n"),
            (StatusCode::NO_CONTENT, "", "HTTP/1.1 204 No Content\r\ndate: D\r\n\r\n"),
            (StatusCode::NOT_MODIFIED, "", "HTTP/1.1 304 Not Modified\r\ndate: D\r\n\r\n"),
            (StatusCode::GONE, "x", "HTTP/1.1 410 Gone\r\ndate: D\r\ncontent-length: 1\r\n\r\nx"),
        ];
        for (status, body, expected) in table {
            assert_eq!(spelt((status, Body::from(body)).into_response()).await, expected);
        }
    }

    #[tokio::test]
    async fn it_says_when_it_was_made() {
        let text = spell(StatusCode::NO_CONTENT.into_response()).await.unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        let (_, date) = text.trim_end().split_once("\r\ndate: ").expect("a date");
        let made = httpdate::parse_http_date(date).unwrap();
        assert!(SystemTime::now().duration_since(made).is_ok_and(|age| age.as_secs() < 60), "{date}");
    }
}

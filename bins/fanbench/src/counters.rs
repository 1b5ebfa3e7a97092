//! Counters that the server keeps itself, read from where it shows them as text, in Prometheus' format.
//!
//! What a server says of itself is worth as much as what is seen from outside: a connection can be gone for many
//! reasons, and only the server's own count says for which.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    adapter::Address,
    http::{Piece, Response},
};

/// How long the server may take to connect, and to send the next piece of its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// The values of these series now, in their order; `None` where the page has no such series. A series is written as the
/// page writes it: `name`, or `name{label="value"}`.
pub(crate) fn read(url: &str, series: &[String]) -> Result<Vec<Option<f64>>> {
    let page = get(url).with_context(|| format!("no metrics at {url}"))?;
    Ok(series.iter().map(|series| value(&page, series)).collect())
}

/// The value of a series on a page, which may have the time of the sample behind it.
fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| {
        let value = line.strip_prefix(series)?.strip_prefix(' ')?;
        value.split_whitespace().next()?.parse().ok()
    })
}

fn get(url: &str) -> Result<String> {
    let Address { socket, host, path } = Address::of(url)?;
    let mut connection = connect(socket)?;
    let path = if path.is_empty() { "/" } else { &path };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes())?;
    let (mut response, mut status, mut body) = (Response::new(), None, Vec::new());
    let mut buffer = [0; 16 * 1024];
    loop {
        let length = connection.read(&mut buffer)?;
        if length == 0 && !response.ends_with_connection() {
            bail!("the answer broke off");
        }
        let mut input = &buffer[..length];
        if response.in_head() {
            status = response.head(&mut input, |head| head.status)?;
        }
        let ended = !response.in_head() && take(&mut response, &mut input, &mut body)?;
        if ended || length == 0 {
            break;
        }
    }
    match status {
        Some(200) => Ok(String::from_utf8(body)?),
        other => bail!("the answer has status {}", other.unwrap_or_default()),
    }
}

/// Adds what there is of the body. True: that was all.
fn take(response: &mut Response, input: &mut &[u8], body: &mut Vec<u8>) -> Result<bool> {
    loop {
        match response.body(input)? {
            Piece::Body(_) if body.len() > MAX_ANSWER => bail!("the answer has more than {MAX_ANSWER} bytes"),
            Piece::Body(bytes) => body.extend_from_slice(bytes),
            Piece::More => return Ok(false),
            Piece::End => return Ok(true),
        }
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&address, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_found_by_its_whole_name() {
        let page = "# TYPE ends_total counter\nends_total{reason=\"left\"} 4\nends_total{reason=\"stalled\"} 20 1700\n\
            ends2 9\nends 7\n";
        assert_eq!(value(page, "ends_total{reason=\"stalled\"}"), Some(20.0));
        assert_eq!(value(page, "ends"), Some(7.0));
        assert_eq!(value(page, "ends_total{reason=\"gone\"}"), None);
        assert_eq!(value(page, "ends_total"), None);
    }
}

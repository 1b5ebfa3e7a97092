//! A connection of which the beginning was read already, to see which protocol it speaks (RFC 9113, section 3.3).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What a client that knows that the server speaks HTTP/2 sends first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Which version of HTTP a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// HTTP/1.1, HTTP/1.0, or what is neither.
    One,
    Two,
}

/// A connection that yields again what was read of it.
#[derive(Debug)]
pub(crate) struct Rewound<Io> {
    io: Io,
    /// What was not yielded yet.
    seen: Bytes,
}

/// Reads as much of a connection as tells its protocol. A connection that ends before is one of HTTP/1.
pub(crate) async fn sniff<Io: AsyncRead + Unpin>(mut io: Io) -> io::Result<(Version, Rewound<Io>)> {
    let mut seen = [0; PREFACE.len()];
    let mut filled = 0;
    while filled < PREFACE.len() && seen[..filled] == PREFACE[..filled] {
        match io.read(&mut seen[filled..]).await? {
            0 => break,
            read => filled += read,
        }
    }
    let version = if seen == *PREFACE { Version::Two } else { Version::One };
    Ok((version, Rewound { io, seen: Bytes::copy_from_slice(&seen[..filled]) }))
}

impl<Io> Rewound<Io> {
    /// A connection of which this was read.
    pub(crate) fn new(io: Io, seen: Bytes) -> Self {
        Self { io, seen }
    }

    pub(crate) fn get_ref(&self) -> &Io {
        &self.io
    }

    /// The connection, and what was read of it and not yielded yet.
    pub(crate) fn into_parts(self) -> (Io, Bytes) {
        (self.io, self.seen)
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Rewound<Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.seen.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let takes = this.seen.len().min(buf.remaining());
        buf.put_slice(&this.seen.split_to(takes));
        Poll::Ready(Ok(()))
    }
}

/// Lets writes through to the `io` inside, where only what is read is of interest.
macro_rules! write_through {
    ($wrapper:ident) => {
        impl<Io: AsyncWrite + Unpin> AsyncWrite for $wrapper<Io> {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                self.io.is_write_vectored()
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().io).poll_flush(cx)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
            }
        }
    };
}

pub(crate) use write_through;

write_through!(Rewound);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    async fn sniffed(pieces: &[&[u8]]) -> (Version, Vec<u8>) {
        let (io, mut client) = duplex(1024);
        let send = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(client);
        };
        let read = async {
            let (version, mut io) = sniff(io).await.unwrap();
            let mut all = Vec::new();
            io.read_to_end(&mut all).await.unwrap();
            (version, all)
        };
        tokio::join!(send, read).1
    }

    #[tokio::test]
    async fn the_preface_is_known_however_it_is_cut_and_nothing_is_lost() {
        let table: [(&[&[u8]], Version); 7] = [
            (&[PREFACE, b"rest"], Version::Two),
            (&[&PREFACE[..1], &PREFACE[1..23], &PREFACE[23..], b"rest"], Version::Two),
            (&[b"GET / HTTP/1.1\r\n\r\n"], Version::One),
            (&[b"P", b"UT /a HTTP/1.1\r\n\r\nand a long body of it"], Version::One),
            (&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", b"X and more"], Version::One),
            (&[b"PRI * HTTP"], Version::One),
            (&[], Version::One),
        ];
        for (pieces, version) in table {
            assert_eq!(sniffed(pieces).await, (version, pieces.concat()));
        }
    }
}

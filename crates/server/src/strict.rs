//! A connection of HTTP/1.1 that yields what is framed beyond doubt, and in place of anything else what the HTTP library
//! refuses ([`framing`](crate::framing)).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    config::MAX_HEAD,
    framing::{Framing, Refused},
    rewind::write_through,
};

/// A connection whose bytes are judged as they are read.
#[derive(Debug)]
pub(crate) struct Strict<Io> {
    io: Io,
    framing: Framing,
    /// What is still to be yielded in place of what was refused, if something was.
    refused: Option<&'static [u8]>,
}

impl<Io> Strict<Io> {
    /// A connection at the beginning of a request.
    pub(crate) fn new(io: Io) -> Self {
        Self { io, framing: Framing::new(MAX_HEAD), refused: None }
    }

    /// Whether something was refused. Nothing behind it was read as a request.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// The connection; and what would have been yielded next in place of what was refused.
    pub(crate) fn into_parts(self) -> (Io, &'static [u8]) {
        (self.io, self.refused.unwrap_or_default())
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Strict<Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refused.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
            let Err(Refused { passed, instead }) = this.framing.follow(&buf.filled()[before..]) else {
                return Poll::Ready(Ok(()));
            };
            buf.set_filled(before + passed);
            this.refused = Some(instead);
        }
        match &mut this.refused {
            Some(instead) if !instead.is_empty() => {
                let (now, later) = instead.split_at(instead.len().min(buf.remaining()));
                buf.put_slice(now);
                *instead = later;
                Poll::Ready(Ok(()))
            }
            // Nothing more, but that the other side has gone.
            _ => drain(Pin::new(&mut this.io), cx),
        }
    }
}

/// Throws away what comes, until the end.
fn drain<Io: AsyncRead>(mut io: Pin<&mut Io>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    loop {
        let mut sink = [0; 1024];
        let mut sink = ReadBuf::new(&mut sink);
        ready!(io.as_mut().poll_read(cx, &mut sink))?;
        if sink.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
    }
}

write_through!(Strict);

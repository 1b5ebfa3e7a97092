//! Connections that take nothing any more.
//!
//! A reader that has stopped reading, or a host that has vanished, leaves its connection writable for ever from above:
//! the response just waits. So a write that waits longer than it may fails, and with it the connection.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// A connection whose writes must get on.
#[derive(Debug)]
pub(crate) struct Unstalled<Io> {
    io: Io,
    patience: Duration,
    /// Armed while a write waits.
    waits: Option<Pin<Box<Sleep>>>,
    /// Whether something has come in since something went out.
    heard: bool,
}

impl<Io> Unstalled<Io> {
    pub(crate) fn new(io: Io, patience: Duration) -> Self {
        Self { io, patience, waits: None, heard: false }
    }

    /// The connection alone.
    pub(crate) fn into_inner(self) -> Io {
        self.io
    }

    /// Whether the peer has said something that was not answered.
    pub(crate) fn heard(&self) -> bool {
        self.heard
    }

    /// What came of a write: as it is, or an error where it has waited for too long.
    fn judge<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waits = None;
            return written;
        }
        let patience = self.patience;
        let waits = self.waits.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(waits.as_mut().poll(cx));
        // Whoever writes on after the error waits anew.
        waits.as_mut().reset(Instant::now() + patience);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Unstalled<Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        this.heard |= buf.filled().len() > before;
        read
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Unstalled<Io> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        this.heard &= written.is_pending();
        this.judge(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.heard &= written.is_pending();
        this.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        this.judge(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.io).poll_shutdown(cx);
        this.judge(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::timeout,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_takes_fails_when_patience_ends() {
        let (io, _silent) = duplex(4);
        let mut io = Unstalled::new(io, PATIENCE);
        io.write_all(b"full").await.unwrap();
        let began = Instant::now();
        let written = timeout(PATIENCE * 2, io.write_all(b"x")).await.expect("it does not wait for ever");
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_one_that_takes_something() {
        let (io, mut reader) = duplex(4);
        let mut io = Unstalled::new(io, PATIENCE);
        let slow = async {
            let mut taken = Vec::new();
            while taken.len() < 40 {
                sleep(PATIENCE - Duration::from_millis(1)).await;
                taken.push(reader.read_u8().await.unwrap());
            }
            taken
        };
        let (written, taken) = tokio::join!(io.write_all(&[7; 40]), slow);
        assert!(written.is_ok());
        assert_eq!(taken, [7; 40]);
    }
}

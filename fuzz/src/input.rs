//! How a target takes an input apart.

use std::borrow::Cow;

/// A line that stands for a field that is not there; one that is missing at the end does, too.
const ABSENT: &str = "~";

/// The first lines of an input; the last one is all the rest.
pub(crate) fn lines<const N: usize>(data: &[u8]) -> [Option<Cow<'_, str>>; N] {
    let mut lines = data.splitn(N, |byte| *byte == b'\n').map(String::from_utf8_lossy);
    std::array::from_fn(|_| lines.next().filter(|line| line != ABSENT))
}

/// Takes pieces from the front: one byte says how long each is.
pub(crate) struct Pieces<'d>(pub(crate) &'d [u8]);

impl<'d> Pieces<'d> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A piece; what is left, where that is less.
    pub(crate) fn piece(&mut self) -> Option<&'d [u8]> {
        let length = usize::from(self.byte()?).min(self.0.len());
        let (piece, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(piece)
    }
}

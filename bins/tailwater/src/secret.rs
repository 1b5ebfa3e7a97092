//! Files that hold secrets: what was read of one wipes itself when it goes.

use std::{fs, io, path::Path};

use zeroize::Zeroizing;

/// Whoever reads such a file gets what wipes itself, and nothing else.
const _: fn(&Path) -> io::Result<Zeroizing<String>> = read;

/// The text of a file.
pub(crate) fn read(file: &Path) -> io::Result<Zeroizing<String>> {
    fs::read_to_string(file).map(Zeroizing::new)
}

//! An event of the log is one line, whatever it holds: names of streams, headers and errors of others cannot end it, colour
//! it, turn it around or hide in it.
//!
//! Control characters (Unicode, category Cc), line and paragraph separators, what changes the direction of text (Unicode
//! Standard Annex 9, section 2) and what has no width are written as `\u202e`, which is a string's own escape where the
//! line is JSON.

use std::{borrow::Cow, io};

/// Writes events, each of which comes in one piece.
#[derive(Debug)]
pub(crate) struct Lines<W> {
    inner: W,
    /// Whether the formatter colours what it writes; it takes the same escapes out of what it is given.
    colours: bool,
}

impl<W> Lines<W> {
    pub(crate) const fn new(inner: W, colours: bool) -> Self {
        Self { inner, colours }
    }
}

impl<W: io::Write> io::Write for Lines<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        self.inner.write_all(line(&text, self.colours).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn line(event: &str, colours: bool) -> Cow<'_, str> {
    let (text, end) = event.strip_suffix('\n').map_or((event, ""), |text| (text, "\n"));
    let is_hidden = |character: char| hides(character) && !(colours && character == '\u{1b}');
    if !text.contains(is_hidden) {
        return Cow::Borrowed(event);
    }
    let mut line = String::with_capacity(event.len() + 32);
    for character in text.chars() {
        if is_hidden(character) {
            line.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            line.push(character);
        }
    }
    line.push_str(end);
    Cow::Owned(line)
}

fn hides(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::{fmt, layer::SubscriberExt as _};

    use super::*;

    /// Every character that could do more than stand there, in what clients may choose.
    const HOSTILE: &str = "a\nb\rc\r\nd\te\0f\u{1b}[31mg\u{1b}]0;h\u{7}i\u{8}j\u{7f}k\u{85}l\u{9b}31mm\u{2028}n\u{2029}o\u{202e}p\u{2066}q\u{200b}r\u{feff}s\u{61c}t";

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of an event that holds hostile text in every way in which an event can.
    fn logged(json: bool) -> String {
        let written = Written::default();
        let writer = written.clone();
        let layer = fmt::layer().with_ansi(false).with_writer(move || Lines::new(writer.clone(), false));
        let event = || {
            let span = tracing::info_span!("request", path = HOSTILE, shown = %HOSTILE);
            let _entered = span.enter();
            let error = io::Error::other(HOSTILE);
            tracing::info!(text = HOSTILE, shown = %HOSTILE, debug = ?HOSTILE, %error, "answered {HOSTILE}");
        };
        let registry = tracing_subscriber::registry();
        if json {
            tracing::subscriber::with_default(registry.with(layer.json()), event);
        } else {
            tracing::subscriber::with_default(registry.with(layer), event);
        }
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_event_is_one_line_whatever_it_holds() {
        for json in [false, true] {
            let log = logged(json);
            let line = log.strip_suffix('\n').unwrap();
            assert!(!line.contains(hides), "{line:?}");
            assert!(line.contains("answered a") && line.contains("\\u202e"), "{line:?}");
        }
    }

    #[test]
    fn a_line_of_json_holds_what_the_event_held() {
        let event: serde_json::Value = serde_json::from_str(&logged(true)).unwrap();
        assert_eq!(event["fields"]["text"], HOSTILE);
        assert_eq!(event["span"]["path"], HOSTILE);
    }

    #[test]
    fn only_what_hides_is_escaped_and_colours_are_left_to_the_formatter() {
        assert_eq!(line("é 日本 \u{1f600}\n", false), "é 日本 \u{1f600}\n");
        assert_eq!(line("a\nb\n", false), "a\\u000ab\n");
        assert_eq!(line("\u{1b}[2ma\u{1b}[0m \r\n", true), "\u{1b}[2ma\u{1b}[0m \\u000d\n");
        assert_eq!(line("\u{1b}[2ma", false), "\\u001b[2ma");
        let mut out = Vec::new();
        let mut lines = Lines::new(&mut out, false);
        lines.write_all(b"a\xffb\n").unwrap();
        lines.flush().unwrap();
        assert_eq!(out, "a\u{fffd}b\n".as_bytes());
    }
}

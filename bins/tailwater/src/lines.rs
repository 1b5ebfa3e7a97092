//! An event of the log is one line, whatever it holds: names of streams, headers and errors of others cannot end it, turn
//! it around or hide in it, nor tell a terminal to do anything.
//!
//! Control characters (Unicode, category Cc), line and paragraph separators, what changes the direction of text (Unicode
//! Standard Annex 9, section 2) and what is not shown (Unicode, `Default_Ignorable_Code_Point`, but for the selectors that
//! pictures have behind them) are written as `\u202e`, in units of UTF-16, which is a string's own escape where the line is
//! JSON.
//!
//! Where the formatter colours, for a terminal, the colours that it uses are left as they are. It guards messages and
//! errors against those of others, but no other field: so those may change a colour there, and nothing else.

use std::{borrow::Cow, io};

/// Writes events, each of which comes in one piece.
#[derive(Debug)]
pub(crate) struct Lines<W> {
    inner: W,
    /// Whether the formatter colours what it writes.
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
    let is_hidden = |(at, character): (usize, char)| hides(character) && !(colours && begins_colour(&text[at..]));
    if !text.char_indices().any(is_hidden) {
        return Cow::Borrowed(event);
    }
    let mut line = String::with_capacity(event.len() + 32);
    for (at, character) in text.char_indices() {
        if is_hidden((at, character)) {
            // JSON knows units of UTF-16 only, of which some characters have two.
            let units =
                character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
            line.push_str(&units);
        } else {
            line.push(character);
        }
    }
    line.push_str(end);
    Cow::Owned(line)
}

/// Whether this begins with an escape that the formatter uses: weights and colours of what is written (ECMA-48, section
/// 8.3.117). Others of that kind could hide text, or swap its colours.
fn begins_colour(text: &str) -> bool {
    let Some(codes) = text.strip_prefix("\u{1b}[") else { return false };
    let end = codes.find(|character: char| !character.is_ascii_digit() && character != ';').unwrap_or(codes.len());
    let (codes, rest) = codes.split_at(end);
    let is_known = |code: &str| code.parse().is_ok_and(|code: u8| matches!(code, 0..=3 | 31..=36));
    rest.starts_with('m') && codes.split(';').all(is_known)
}

fn hides(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tracing_subscriber::{fmt, layer::SubscriberExt as _};

    use super::*;
    use crate::log::tests::Written;

    /// Every character that could do more than stand there, in what clients may choose.
    const HOSTILE: &str = "a\nb\rc\r\nd\te\0f\u{1b}[31mg\u{1b}]0;h\u{7}i\u{8}j\u{7f}k\u{85}l\u{9b}31mm\u{2028}n\u{2029}o\u{202e}p\u{2066}q\u{200b}r\u{feff}s\u{61c}t\u{2060}u\u{2064}v\u{ad}w\u{180e}x\u{206a}y\u{fff9}z\u{e0041}\u{e007f}\u{1b}[8m\u{1b}[2J\u{1b}[1;7m\u{1b}[\u{1b}";

    /// What is written of an event that holds hostile text in every way in which an event can.
    fn logged(json: bool, colours: bool) -> String {
        let written = Written::default();
        let writer = written.clone();
        let layer = fmt::layer().with_ansi(colours).with_writer(move || Lines::new(writer.clone(), colours));
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
        written.text()
    }

    #[test]
    fn an_event_is_one_line_whatever_it_holds() {
        for json in [false, true] {
            let log = logged(json, false);
            let line = log.strip_suffix('\n').unwrap();
            assert!(!line.contains(hides), "{line:?}");
            assert!(line.contains("answered a") && line.contains("\\u202e"), "{line:?}");
        }
    }

    #[test]
    fn an_event_in_colours_is_one_line_and_tells_a_terminal_nothing_but_colours() {
        let log = logged(false, true);
        let line = log.strip_suffix('\n').unwrap();
        assert!(line.contains("\u{1b}[32m INFO\u{1b}[0m"), "{line:?}");
        assert!(line.contains("shown\u{1b}[0m\u{1b}[2m=\u{1b}[0ma\\u000ab"), "{line:?}");
        let mut escapes = line.split('\u{1b}');
        assert!(!escapes.next().unwrap().contains(hides), "{line:?}");
        for escape in escapes {
            let (codes, text) = escape.strip_prefix('[').unwrap().split_once('m').unwrap();
            assert!(["0", "1", "2", "3", "31", "32"].contains(&codes), "{codes:?} in {line:?}");
            assert!(!text.contains(hides), "{line:?}");
        }
    }

    #[test]
    fn a_line_of_json_holds_what_the_event_held() {
        let event: serde_json::Value = serde_json::from_str(&logged(true, false)).unwrap();
        assert_eq!(event["fields"]["text"], HOSTILE);
        assert_eq!(event["span"]["path"], HOSTILE);
    }

    #[test]
    fn only_what_hides_is_escaped_and_colours_are_left_to_the_formatter() {
        assert_eq!(line("é 日本 \u{1f600}\n", false), "é 日本 \u{1f600}\n");
        assert_eq!(line("a\nb\n", false), "a\\u000ab\n");
        assert_eq!(line("\u{1b}[2ma\u{1b}[0m \r\n", true), "\u{1b}[2ma\u{1b}[0m \\u000d\n");
        assert_eq!(line("\u{1b}[2ma", false), "\\u001b[2ma");
        assert_eq!(line("\u{1f44d}\u{fe0f}\u{e0041}\u{2060}", false), "\u{1f44d}\u{fe0f}\\udb40\\udc41\\u2060");
        for refused in ["[8m", "[1;7m", "[m", "[;m", "[2J", "[2", "[999m", "]0;a", "[38;5;1m", "c", ""] {
            assert_eq!(line(&format!("\u{1b}{refused}"), true), format!("\\u001b{refused}"));
        }
        let mut out = Vec::new();
        let mut lines = Lines::new(&mut out, false);
        lines.write_all(b"a\xffb\n").unwrap();
        lines.flush().unwrap();
        assert_eq!(out, "a\u{fffd}b\n".as_bytes());
    }
}

//! Tickets in the query of a URL: finding them, and keeping them out of logs.

use std::{borrow::Cow, fmt::Write as _};

use percent_encoding::percent_decode_str;

/// The parameter that holds a ticket.
pub const PARAMETER: &str = "ticket";

/// What a query says that is harmless, and what harmless values are made of.
const SHOWN: [&str; 3] = ["offset", "live", "cursor"];
/// The longest value that is shown: an offset has 33 characters.
const MAX_SHOWN: usize = 40;

/// The parameter stands in the query twice: which of them a proxy has looked at, nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the query has more than one `{PARAMETER}`")]
pub struct Repeated;

/// The ticket in a raw query, if there is one; it may be empty. Names and values are percent-decoded once, as those of
/// the other parameters are. What is not UTF-8 then is no ticket either.
///
/// # Errors
/// [`Repeated`].
pub fn in_query(raw: &str) -> Result<Option<Cow<'_, str>>, Repeated> {
    let mut found = None;
    for pair in raw.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decoded(name) != PARAMETER {
            continue;
        }
        if found.replace(decoded(value)).is_some() {
            return Err(Repeated);
        }
    }
    Ok(found)
}

/// A raw query for a log: what is known to be harmless stands as it is, and of all else, names included, stands `…`. So no
/// spelling of the parameter, and no ticket or token in a wrong place, is shown.
#[must_use]
pub fn without_secrets(raw: &str) -> String {
    let mut shown = String::with_capacity(raw.len().min(256));
    for pair in raw.split('&') {
        if !shown.is_empty() {
            shown.push('&');
        }
        match pair.split_once('=') {
            Some((name, value)) if SHOWN.contains(&name) && is_harmless(value) => shown.push_str(pair),
            Some((name, _)) if SHOWN.contains(&name) => write!(shown, "{name}=…").expect("a text takes all"),
            Some(_) | None => shown.push('…'),
        }
    }
    shown
}

/// Whether a value could be one of an offset, a mode or a cursor. A ticket, a token or a part that is of use has capitals
/// or is longer.
fn is_harmless(value: &str) -> bool {
    value.len() <= MAX_SHOWN
        && value.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase() || b"_-".contains(&byte))
}

fn decoded(raw: &str) -> Cow<'_, str> {
    percent_decode_str(raw).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ticket_is_found_however_its_parameter_is_spelled() {
        let table: [(&str, Result<Option<&str>, Repeated>); 12] = [
            ("", Ok(None)),
            ("offset=-1&live=sse", Ok(None)),
            ("ticket=AbC-_9", Ok(Some("AbC-_9"))),
            ("live=sse&ticket=a&offset=-1", Ok(Some("a"))),
            ("%74icket=a", Ok(Some("a"))),
            ("ticket=%61", Ok(Some("a"))),
            ("ticket", Ok(Some(""))),
            ("ticket=", Ok(Some(""))),
            ("Ticket=a&tickets=b&%2574icket=c", Ok(None)),
            ("ticket=a&ticket=a", Err(Repeated)),
            ("ticket=a&x=1&%74icket=b", Err(Repeated)),
            ("ticket&ticket=a", Err(Repeated)),
        ];
        for (query, found) in table {
            assert_eq!(in_query(query), found.map(|ticket| ticket.map(Cow::Borrowed)), "{query}");
        }
    }

    #[test]
    fn a_log_shows_what_is_harmless_and_nothing_else() {
        let table = [
            ("", "…"),
            ("offset=-1&live=sse&cursor=17", "offset=-1&live=sse&cursor=17"),
            ("offset=now&ticket=Secret", "offset=now&…"),
            ("%74icket=Secret&live=sse", "…&live=sse"),
            ("Secret", "…"),
            ("access_token=Secret&Secret=1", "…&…"),
            ("offset=Secret", "offset=…"),
            ("offset=%53ecret", "offset=…"),
            ("of%66set=-1", "…"),
        ];
        for (query, shown) in table {
            assert_eq!(without_secrets(query), shown, "{query}");
        }
    }

    proptest! {
        #[test]
        fn no_ticket_is_shown_wherever_it_stands(before in "[a-z=&%]{0,12}", after in "[a-z=&%]{0,12}", ticket in "[A-Za-z0-9_-]{60,90}") {
            let shown = without_secrets(&format!("{before}{ticket}{after}"));
            for part in 0..ticket.len() - 41 {
                prop_assert!(!shown.contains(&ticket[part..part + 41]), "{}", shown);
            }
        }
    }
}

//! Tickets in the query of a URL: finding them.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The parameter that holds a ticket.
pub const PARAMETER: &str = "ticket";

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

fn decoded(raw: &str) -> Cow<'_, str> {
    percent_decode_str(raw).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
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
}

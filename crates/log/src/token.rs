//! Fencing tokens: S2's lock is part of a stream's state.
//!
//! ```text
//! ""                          a native stream: nobody ever fenced it
//! o.<incarnation>[.<turn>]    ours, open        incarnation, turn: 16 hex digits
//! c.<incarnation>[.<turn>]    ours, closed
//! g.<incarnation>[.<turn>]    ours, gone: deleted or expired
//! anything else               fenced by a native writer; the gateway does not write there
//! ```
//!
//! A turn is a random number. Moving the token from one turn to another changes nothing about the stream, but refuses
//! every append that is still under way with the turn before: that is how an append of unknown fate is settled, and how
//! pods take turns. The longest form has 35 bytes; S2 allows 36.

use std::fmt;

/// What the fencing token in force says of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Token {
    /// The empty token: a native stream, or none at all.
    #[default]
    Native,
    /// A token of a gateway.
    Ours(OurToken),
    /// Fenced by someone else.
    Foreign(String),
}

/// A token that a gateway has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OurToken {
    /// What it allows.
    pub phase: Phase,
    /// The incarnation of the stream that it belongs to.
    pub incarnation: u64,
    /// Whose turn it is; `None` as the incarnation's own marks set it.
    pub turn: Option<u64>,
}

/// Which part of its life a stream is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Takes appends.
    Open,
    /// Takes no more appends; can be read.
    Closed,
    /// Deleted or expired.
    Gone,
}

impl Token {
    /// A token of ours without a turn.
    #[must_use]
    pub fn ours(phase: Phase, incarnation: u64) -> Self {
        Self::Ours(OurToken { phase, incarnation, turn: None })
    }

    /// Reads a token. Whatever is not of our form is foreign; there are no errors.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if text.is_empty() {
            return Self::Native;
        }
        parse_ours(text).map_or_else(|| Self::Foreign(text.to_owned()), Self::Ours)
    }

    /// The incarnation, where the token is ours and says `phase`.
    #[must_use]
    pub fn ours_in(&self, phase: Phase) -> Option<u64> {
        match self {
            Self::Ours(ours) if ours.phase == phase => Some(ours.incarnation),
            Self::Ours(_) | Self::Native | Self::Foreign(_) => None,
        }
    }

    /// The same token with another turn; `None` where it is not ours.
    #[must_use]
    pub fn with_turn(&self, turn: u64) -> Option<Self> {
        match self {
            Self::Ours(ours) => Some(Self::Ours(OurToken { turn: Some(turn), ..*ours })),
            Self::Native | Self::Foreign(_) => None,
        }
    }

    /// Whether `other` differs from this one in nothing but the turn.
    #[must_use]
    pub fn differs_only_in_turn(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ours(a), Self::Ours(b)) => a.phase == b.phase && a.incarnation == b.incarnation && a.turn != b.turn,
            _ => false,
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => Ok(()),
            Self::Foreign(text) => f.write_str(text),
            Self::Ours(OurToken { phase, incarnation, turn }) => {
                let letter = match phase {
                    Phase::Open => 'o',
                    Phase::Closed => 'c',
                    Phase::Gone => 'g',
                };
                write!(f, "{letter}.{incarnation:016x}")?;
                turn.map_or(Ok(()), |turn| write!(f, ".{turn:016x}"))
            }
        }
    }
}

fn parse_ours(text: &str) -> Option<OurToken> {
    let mut parts = text.split('.');
    let phase = match parts.next()? {
        "o" => Phase::Open,
        "c" => Phase::Closed,
        "g" => Phase::Gone,
        _ => return None,
    };
    let incarnation = parse_hex(parts.next()?)?;
    let turn = match parts.next() {
        None => None,
        Some(turn) => Some(parse_hex(turn)?),
    };
    parts.next().is_none().then_some(OurToken { phase, incarnation, turn })
}

fn parse_hex(text: &str) -> Option<u64> {
    let canonical = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    canonical.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_have_one_spelling_each() {
        let moved = Token::ours(Phase::Open, 0xab).with_turn(7).unwrap();
        for (token, text) in [
            (Token::Native, ""),
            (Token::ours(Phase::Open, 0xab), "o.00000000000000ab"),
            (Token::ours(Phase::Closed, u64::MAX), "c.ffffffffffffffff"),
            (Token::ours(Phase::Gone, 0), "g.0000000000000000"),
            (moved, "o.00000000000000ab.0000000000000007"),
        ] {
            assert_eq!(token.to_string(), text);
            assert_eq!(Token::parse(text), token);
            assert!(text.len() <= 36, "S2 takes tokens of at most 36 bytes");
        }
    }

    #[test]
    fn what_is_not_of_our_form_is_foreign() {
        for text in ["o", "o.", "o.ab", "O.00000000000000ab", "o.00000000000000AB", "x.00000000000000ab", "leader-1"] {
            assert_eq!(Token::parse(text), Token::Foreign(text.to_owned()));
        }
        let text = "o.00000000000000ab.0000000000000007.";
        assert_eq!(Token::parse(text), Token::Foreign(text.to_owned()));
    }

    #[test]
    fn a_turn_is_all_that_a_move_changes() {
        let before = Token::ours(Phase::Open, 1);
        let after = before.with_turn(9).unwrap();
        assert!(before.differs_only_in_turn(&after));
        assert!(!before.differs_only_in_turn(&Token::ours(Phase::Closed, 1)));
        assert!(!before.differs_only_in_turn(&before));
        assert_eq!(Token::Native.with_turn(1), None);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in "\\PC{0,40}") {
            prop_assert_eq!(Token::parse(&text).to_string(), text);
        }
    }
}

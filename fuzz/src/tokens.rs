//! Tokens as they come, and claims that somebody with the key has signed.

use serde_json::Value;
use tailwater_auth::{Grant, Moment, Scope, Streams, TokenError, inspect, token::Token};

use crate::trust::{AUDIENCE, ISSUER, MOMENT, NOW, PROJECTS, STOLEN, hs256, id, project, projects, signed};

pub(crate) fn token(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let inspection = inspect(text);
    let parsed = Token::parse(text);
    if let Ok(token) = &parsed {
        assert_eq!(format!("{token:?}"), "Token(…)");
    }
    assert!(inspection.form.is_err() || parsed.is_ok());
    for name in ["chat", "twin", "public"] {
        let fresh = project(name).verify(text, MOMENT);
        // Through what is remembered, twice.
        for _ in 0..2 {
            let again = PROJECTS.verify(&id(name), text, MOMENT).map(|grant| (*grant).clone());
            assert_eq!(again, fresh);
        }
        let Ok(grant) = fresh else { continue };
        assert_eq!(inspection.form, Ok(()));
        let token = parsed.as_ref().expect("what is verified is a token");
        let (message, signature) = text.rsplit_once('.').expect("a token has three parts");
        assert!(!token.algorithm().is_symmetric() || signature == hs256(message));
        assert_eq!(grant.project, id(name));
        ends(name, text, &grant);
    }
    assert_eq!(
        PROJECTS.verify(&id("nobody"), text, MOMENT).err(),
        Some(parsed.err().unwrap_or(TokenError::Unverified))
    );
}

/// That what it grants ends when it says so.
fn ends(name: &str, text: &str, grant: &Grant) {
    let end = grant.expires_at.saturating_add(MOMENT.skew);
    if end < u64::MAX {
        let late = Moment { now: end, ..MOMENT };
        assert_eq!(projects().verify(&id(name), text, late).err(), Some(TokenError::Expired));
    }
}

/// A line of a header, and claims behind it.
pub(crate) fn claims(data: &[u8]) {
    let (header, claims) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let claims = claims.strip_prefix(b"\n").unwrap_or(claims);
    let text = signed(header, claims);
    for name in ["chat", "twin"] {
        let Ok(grant) = project(name).verify(&text, MOMENT) else { continue };
        // Another reader, which takes the last of members that stand there twice, must agree.
        let (Ok(header), Ok(claims)) = (serde_json::from_slice(header), serde_json::from_slice(claims)) else {
            continue;
        };
        is_a_header_that_is_taken(&header);
        claims_what_is_granted(name, &claims, &grant);
        ends(name, &text, &grant);
    }
    // No other key, and no other project's, verifies what that secret has signed.
    assert!(project("public").verify(&text, MOMENT).is_err());
}

fn is_a_header_that_is_taken(header: &Value) {
    assert_eq!(header["alg"], "HS256");
    for refused in ["crit", "b64", "cty", "enc", "zip", "jwk", "jku", "x5u", "x5c"] {
        assert_eq!(header.get(refused), None);
    }
    let typ = header["typ"].as_str().map(str::to_lowercase);
    let typ = typ.as_deref().map(|typ| typ.strip_prefix("application/").unwrap_or(typ));
    assert!(typ.is_none_or(|typ| typ == "jwt" || typ == "at+jwt"), "{typ:?}");
}

fn claims_what_is_granted(name: &str, claims: &Value, grant: &Grant) {
    assert_eq!(claims["sub"], name);
    let number = |name: &str| claims[name].as_f64();
    let now = u32::try_from(NOW).map(f64::from).expect("the time is before 2106");
    let skew = u32::try_from(MOMENT.skew).map(f64::from).expect("the skew is short");
    assert!(number("exp").is_some_and(|end| now < end + skew), "{claims}");
    assert!(number("nbf").is_none_or(|start| start <= now + skew), "{claims}");
    assert_eq!(claims.get("jti").is_some(), grant.id.is_some());
    assert_eq!(claims["jti"].as_str(), grant.id.as_deref());
    if name == "chat" {
        assert_ne!(grant.id.as_deref(), Some(STOLEN));
        assert_eq!(claims["iss"], ISSUER);
        assert!(words(&claims["aud"]).any(|named| named == AUDIENCE), "{claims}");
    }
    for scope in Scope::ALL {
        let named = words(&claims["scope"]).flat_map(|names| names.split(' ')).any(|named| named == scope.as_str());
        assert_eq!(grant.scopes.contains(scope), named, "{claims}");
    }
    let patterns = match &grant.streams {
        Streams::All => None,
        Streams::Only(patterns) => Some(patterns.len()),
    };
    assert_eq!(claims.get("streams").and_then(Value::as_array).map(Vec::len), patterns, "{claims}");
    assert_eq!(claims.get("streams").is_some(), patterns.is_some(), "{claims}");
}

/// The texts of a text, or of a list of them.
fn words(value: &Value) -> impl Iterator<Item = &str> {
    let list = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    value.as_str().into_iter().chain(list)
}

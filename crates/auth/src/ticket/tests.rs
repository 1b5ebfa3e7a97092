use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::{
    key::Algorithm,
    keys::Keys,
    mint::{NewToken, mint},
    token::{Token, claims::MAX_TOKEN_ID},
};

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"the secret of chat: thirty-two bytes and more";
const OTHER: &[u8] = b"another secret: thirty-two bytes and even more";
const GATEWAY: &[u8] = b"the gateway's own secret, for tickets alone";
const ORIGIN: &str = "https://app.example";
const ID: TicketId = TicketId([7; 9]);
const NONE: fn(&str, Option<u64>) -> bool = |_, _| false;
const NO_KEY: fn(KeyPrint) -> bool = |_| false;

fn key(id: &str, secret: &[u8]) -> Key {
    Key::secret(Some(crate::key::KeyId::parse(id).unwrap()), secret).unwrap()
}

fn public() -> Key {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    Key::public(None, Algorithm::EdDsa, &pair.public_key_pem()).unwrap()
}

fn project(id: &str, keys: Vec<Key>) -> Project {
    Project::new(ProjectId::parse(id).unwrap(), Keys::new(keys).unwrap())
}

fn chat() -> Project {
    project("chat", vec![key("a", SECRET)])
}

fn grant(project: &Project) -> Grant {
    Grant {
        project: project.id.clone(),
        scopes: Scopes::among(["read", "write"]),
        streams: Streams::only(["room/*"].into_iter()).unwrap(),
        expires_at: NOW + 600,
        not_before: None,
        issued_at: Some(NOW - 60),
        key: project.keys.first().unwrap().print(),
        id: Some("one".to_owned()),
    }
}

static SECRETS: LazyLock<TicketSecrets> = LazyLock::new(|| TicketSecrets::new([GATEWAY]).unwrap());
static NO_SECRETS: LazyLock<TicketSecrets> = LazyLock::new(TicketSecrets::default);

fn room(project: &Project) -> Purpose<'_> {
    Purpose { project, stream: "room/1", origin: ORIGIN, secrets: &SECRETS }
}

fn issued(project: &Project, grant: &Grant) -> String {
    issue(&room(project), grant, NOW, ID).unwrap().reveal().to_owned()
}

fn at(now: u64) -> Moment {
    Moment { now, skew: 0 }
}

/// What becomes of a ticket that is used at once.
fn used(ticket: &str, purpose: &Purpose<'_>) -> Result<Admission, TicketError> {
    admit(ticket, purpose, at(NOW), Arrival::First, NONE, NO_KEY)
}

#[test]
fn a_ticket_reads_its_stream_as_long_as_its_token_would() {
    let chat = chat();
    let ticket = issued(&chat, &grant(&chat));
    assert!(ticket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    assert!(ticket.len() <= 110, "{} characters", ticket.len());
    let admission = used(&ticket, &room(&chat)).unwrap();
    let held = TicketHeld { id: ID, signer: chat.keys.first().map(Key::print), hour_ends_at: NOW + MAX_LIFE };
    assert_eq!((admission.held, admission.grant.expires_at), (held, NOW + 600));
    let ruled = |act| decide(act, Some(&admission.grant), crate::project::Writers::ReadToo);
    assert_eq!(ruled(Act::Read("room/1")), Ruling::Allowed);
    for act in [Act::Read("room/2"), Act::Read("room"), Act::Read("room/1/x"), Act::Write("room/1"), Act::Manage] {
        assert_ne!(ruled(act), Ruling::Allowed, "{act:?}");
    }
}

#[test]
fn a_ticket_lives_no_longer_than_its_token_and_an_hour_at_most() {
    let chat = chat();
    let table = [(NOW + 1, NOW + 1), (NOW + 3600, NOW + 3600), (NOW + 3601, NOW + 3600), (u64::MAX, NOW + 3600)];
    for (token, end) in table {
        let ticket = issued(&chat, &Grant { expires_at: token, ..grant(&chat) });
        let resumed = |now| admit(&ticket, &room(&chat), at(now), Arrival::Resumed, NONE, NO_KEY);
        assert_eq!(resumed(end - 1).map(|admission| admission.grant.expires_at), Ok(end));
        assert_eq!(resumed(end), Err(TicketError::Expired));
        let skewed = Moment { now: NOW + 3600, skew: 300 };
        let late = admit(&ticket, &room(&chat), skewed, Arrival::Resumed, NONE, NO_KEY);
        assert_eq!(late, Err(TicketError::Expired), "no skew lengthens the hour");
    }
    let expired = issue(&room(&chat), &Grant { expires_at: NOW, ..grant(&chat) }, NOW, ID);
    assert_eq!(expired, Err(IssueError::Expired));
}

#[test]
fn a_ticket_is_used_within_a_minute_or_goes_on() {
    let chat = chat();
    let ticket = issued(&chat, &grant(&chat));
    let table = [
        (NOW + 59, 0, Arrival::First, None),
        (NOW + 60, 0, Arrival::First, Some(TicketError::Late)),
        (NOW + 60, 0, Arrival::Resumed, None),
        (NOW + 59, 30, Arrival::First, None),
        (NOW + 60, 30, Arrival::First, Some(TicketError::Late)),
        (NOW - 1, 0, Arrival::First, Some(TicketError::NotYet)),
        (NOW - 1, 30, Arrival::First, None),
    ];
    for (now, skew, arrival, fault) in table {
        let answer = admit(&ticket, &room(&chat), Moment { now, skew }, arrival, NONE, NO_KEY);
        assert_eq!(answer.err(), fault, "{now} {skew} {arrival:?}");
    }
}

#[test]
fn a_ticket_is_of_no_use_for_anything_else_than_it_was_issued_for() {
    let chat = chat();
    let twin = project("twin", vec![key("a", SECRET)]);
    let other = project("chat", vec![key("a", OTHER)]);
    let ticket = issued(&chat, &grant(&chat));
    let purposes = [
        Purpose { project: &twin, ..room(&chat) },
        Purpose { project: &other, ..room(&chat) },
        Purpose { stream: "room/2", ..room(&chat) },
        Purpose { stream: "room%2F1", ..room(&chat) },
        Purpose { stream: "room", ..room(&chat) },
        Purpose { stream: "", ..room(&chat) },
        Purpose { origin: "https://evil.example", ..room(&chat) },
        Purpose { origin: "http://app.example", ..room(&chat) },
        Purpose { origin: "https://app.example:8443", ..room(&chat) },
        Purpose { origin: "https://app.example.evil.example", ..room(&chat) },
        Purpose { origin: "null", ..room(&chat) },
        Purpose { origin: "", ..room(&chat) },
    ];
    for purpose in purposes {
        assert_eq!(used(&ticket, &purpose), Err(TicketError::Unverified), "{} {}", purpose.stream, purpose.origin);
    }
}

#[test]
fn what_is_signed_cannot_be_cut_elsewhere() {
    let chat = chat();
    let (one, two) =
        (Purpose { stream: "a", origin: "bc", ..room(&chat) }, Purpose { stream: "ab", origin: "c", ..room(&chat) });
    assert_ne!(one.signed(b""), two.signed(b""));
}

#[test]
fn no_ticket_is_a_token_and_no_token_a_ticket() {
    let chat = chat();
    let ticket = issued(&chat, &grant(&chat));
    assert!(Token::parse(&ticket).is_err());
    let token = NewToken {
        project: chat.id.clone(),
        scopes: Scopes::among(["read"]),
        streams: None,
        issued_at: NOW,
        expires_at: NOW + 60,
        not_before: None,
        audience: None,
        issuer: None,
        id: None,
    };
    let signing = chat.keys.first().and_then(Key::signing).unwrap();
    let token = mint(&signing, &token).unwrap();
    assert_eq!(used(&token, &room(&chat)), Err(TicketError::Form));
    // The parts of the one with the signature of the other: the key is the same, what is signed never is.
    let (payload, seal) = ticket.split_at(ticket.len() - SIGNATURE);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    assert_eq!(used(&format!("{payload}{signature}"), &room(&chat)), Err(TicketError::Unverified));
    assert!(chat.verify(&format!("{signed}.{seal}"), at(NOW)).is_err());
    // What a holder of the key's HMAC over any token's text could ever have signed.
    assert!(!purpose_starts_like_a_token(&room(&chat)));
    let bare = signing.sign(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    assert_eq!(used(&format!("{payload}{bare}"), &room(&chat)), Err(TicketError::Unverified));
}

/// Whether all that stands before the first dot could be base64url, as it is in a token.
fn purpose_starts_like_a_token(purpose: &Purpose<'_>) -> bool {
    let signed = purpose.signed(b"");
    signed.split(|byte| *byte == b'.').next().is_some_and(|head| URL_SAFE_NO_PAD.decode(head).is_ok())
}

#[test]
fn no_other_text_is_a_ticket() {
    let chat = chat();
    let ticket = issued(&chat, &grant(&chat));
    let (payload, signature) = ticket.split_at(ticket.len() - SIGNATURE);
    let later = Carried {
        expires_at: NOW + 3600,
        ..Carried::decode(&URL_SAFE_NO_PAD.decode(payload).unwrap())
            .map(|carried| Carried { token: None, ..carried })
            .unwrap()
    };
    let mut second = URL_SAFE_NO_PAD.decode(payload).unwrap();
    second[0] = 2;
    let table = [
        (String::new(), TicketError::Form),
        ("x".to_owned(), TicketError::Form),
        ("x".repeat(MAX_TICKET + 1), TicketError::TooLong),
        (signature.to_owned(), TicketError::Form),
        (ticket[1..].to_owned(), TicketError::Form),
        (ticket[..ticket.len() - 1].to_owned(), TicketError::Form),
        (format!("{ticket}A"), TicketError::Form),
        (format!("{ticket}="), TicketError::Form),
        (format!(" {ticket}"), TicketError::Form),
        (format!("é{}", "x".repeat(SIGNATURE - 1)), TicketError::Form),
        (format!("{payload}{}", "A".repeat(SIGNATURE)), TicketError::Unverified),
        (format!("{payload}{}", signature.to_lowercase()), TicketError::Unverified),
        (format!("{}{signature}", URL_SAFE_NO_PAD.encode(later.encode())), TicketError::Unverified),
        (format!("{}{signature}", URL_SAFE_NO_PAD.encode(second)), TicketError::Form),
        (issued(&chat, &grant(&chat)).to_uppercase(), TicketError::Form),
    ];
    for (text, fault) in table {
        assert_eq!(used(&text, &room(&chat)), Err(fault), "{text}");
        let by_form = fault != TicketError::Unverified;
        assert_eq!(check_form(&text).err(), by_form.then_some(fault), "{text}");
    }
}

#[test]
fn a_ticket_outlives_a_rotation_but_not_the_key_of_its_token() {
    let old = chat();
    let ticket = issued(&old, &grant(&old));
    let rotating = project("chat", vec![key("b", OTHER), key("a", SECRET)]);
    assert!(used(&ticket, &room(&rotating)).is_ok());
    let rotated = project("chat", vec![key("b", OTHER)]);
    assert_eq!(used(&ticket, &room(&rotated)), Err(TicketError::Unverified));
    // Got with a token of the old key while the new one signed already: the old key's end is its end, too.
    let ticket = issue(&room(&rotating), &grant(&old), NOW, ID).unwrap();
    assert!(used(ticket.reveal(), &room(&rotating)).is_ok());
    assert_eq!(used(ticket.reveal(), &room(&rotated)), Err(TicketError::Revoked));
}

/// Whoever has a key of the project can sign what no gateway would.
#[test]
fn a_ticket_that_says_it_lives_longer_than_an_hour_lives_an_hour_and_tells_who_signed_it() {
    let chat = project("chat", vec![key("a", SECRET), key("b", OTHER)]);
    let [first, second] = [0, 1].map(|n| chat.keys.iter().nth(n).unwrap());
    let carried =
        Carried { id: ID, key: first.print(), issued_at: NOW, expires_at: u64::MAX, since: None, token: None };
    let carried = carried.encode();
    let signature = second.signing().and_then(|key| key.sign(&room(&chat).signed(&carried))).unwrap();
    let forged = URL_SAFE_NO_PAD.encode(&carried) + &signature;
    let admission = used(&forged, &room(&chat)).unwrap();
    assert_eq!((admission.grant.key, admission.grant.expires_at), (first.print(), NOW + MAX_LIFE));
    assert_eq!((admission.held.signer, admission.held.hour_ends_at), (Some(second.print()), NOW + MAX_LIFE));
}

#[test]
fn a_project_of_public_keys_has_tickets_by_the_gateways_secret() {
    let own = public();
    let chat = project("chat", vec![own.clone()]);
    let ticket = issued(&chat, &grant(&chat));
    assert_eq!(used(&ticket, &room(&chat)).map(|admission| admission.held.signer), Ok(None), "no key that can go");
    assert_eq!(
        issue(&Purpose { secrets: &NO_SECRETS, ..room(&chat) }, &grant(&chat), NOW, ID),
        Err(IssueError::NoSecret)
    );
    let under = |secrets: &[&[u8]], project: &Project| {
        let secrets = TicketSecrets::new(secrets.iter().copied()).unwrap();
        admit(&ticket, &Purpose { secrets: &secrets, ..room(project) }, at(NOW), Arrival::First, NONE, NO_KEY).err()
    };
    assert_eq!(under(&[OTHER, GATEWAY], &chat), None, "the gateway's secret is rotated, too");
    assert_eq!(under(&[OTHER], &chat), Some(TicketError::Unverified));
    assert_eq!(under(&[], &chat), Some(TicketError::Unverified));
    let another = project("other", vec![own]);
    assert_eq!(under(&[GATEWAY], &another), Some(TicketError::Unverified), "each project has a key of its own");
    let rotated = project("chat", vec![public()]);
    assert_eq!(under(&[GATEWAY], &rotated), Some(TicketError::Revoked));
}

#[test]
fn a_ticket_got_with_an_issuers_key_counts_as_long_as_the_issuer_has_it() {
    let (chat, issuers) = (chat(), public());
    let ticket = issued(&chat, &Grant { key: issuers.print(), ..grant(&chat) });
    let under = |ticket: &str, has: &dyn Fn(KeyPrint) -> bool| {
        admit(ticket, &room(&chat), at(NOW), Arrival::First, NONE, has).err()
    };
    assert_eq!(under(&ticket, &|key| key == issuers.print()), None);
    assert_eq!(under(&ticket, &NO_KEY), Some(TicketError::Revoked));
    let forged = format!("{}{}", &ticket[..ticket.len() - SIGNATURE], "A".repeat(SIGNATURE));
    let nobody = |_| panic!("a forged ticket makes nobody look for keys");
    assert_eq!(under(&forged, &nobody), Some(TicketError::Unverified));
}

#[test]
fn a_ticket_of_this_version_stays_what_it_is() {
    let chat = chat();
    let carried = b"\x01\x07\x07\x07\x07\x07\x07\x07\x07\x07";
    let signed = room(&chat).signed(carried);
    let head = b"tailwater ticket, version 1\0\x04chat\x06room/1\x13https://app.example";
    assert_eq!(signed, [&head[..], carried].concat());
    let ticket = issued(&chat, &grant(&chat));
    let print = b64_of(&chat.keys.first().unwrap().print().0);
    assert_eq!(
        (ticket.as_str(), print.as_str()),
        (
            "AQcHBwcHBwcHB33sDJy9WZtngKSn2gbYqKfaBgHEo6faBgEDb25lsWz6XrBjfe_xbTdzn0GBa2S6nKykRxZA6yFfRqPVIJI",
            "fewMnL1Zm2c"
        )
    );
}

fn b64_of(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn whoever_revokes_the_ticket_or_its_token_or_all_that_are_old_ends_it() {
    let mut chat = chat();
    let ticket = issued(&chat, &grant(&chat));
    let under = |project: &Project, revoked: &dyn Fn(&str, Option<u64>) -> bool| {
        admit(&ticket, &room(project), at(NOW), Arrival::Resumed, revoked, NO_KEY).err()
    };
    assert_eq!(under(&chat, &|id, _| id == ID.to_string()), Some(TicketError::Revoked));
    assert_eq!(under(&chat, &|id, _| id == "one"), Some(TicketError::Revoked));
    assert_eq!(under(&chat, &|_, issued| issued < Some(NOW - 59)), Some(TicketError::Revoked), "its token is older");
    assert_eq!(under(&chat, &|id, issued| id == "two" || issued < Some(NOW - 60)), None);
    chat.revoked.insert("one".to_owned());
    assert_eq!(under(&chat, &NONE), Some(TicketError::Revoked));
    let nameless = Grant { id: None, issued_at: None, ..grant(&chat) };
    let ticket = issued(&chat, &nameless);
    let old = |_: &str, issued: Option<u64>| issued.is_none();
    let answer = admit(&ticket, &room(&chat), at(NOW), Arrival::First, old, NO_KEY);
    assert_eq!(answer, Err(TicketError::Revoked), "a token that says nothing of its age is as old as can be");
}

#[test]
fn a_ticket_is_issued_to_who_may_read_and_for_what_a_browser_calls_an_origin() {
    let chat = chat();
    let asked = |grant: &Grant, stream, origin| {
        let purpose = Purpose { stream, origin, ..room(&chat) };
        issue(&purpose, grant, NOW, ID).err()
    };
    let scoped = |scopes: &str| Grant { scopes: Scopes::among(scopes.split(' ')), ..grant(&chat) };
    assert_eq!(asked(&scoped("read"), "room/1", ORIGIN), None);
    assert_eq!(asked(&scoped("write manage"), "room/1", ORIGIN), Some(Refusal::Scope(Scope::Read).into()));
    assert_eq!(asked(&scoped("read"), "other/1", ORIGIN), Some(Refusal::Hidden.into()));
    for origin in ["", "null", "*", "app.example", "https://app.example/", "https://APP.example", "https://a.b:443"] {
        assert_eq!(asked(&scoped("read"), "room/1", origin), Some(IssueError::Origin), "{origin}");
    }
}

#[test]
fn a_page_is_of_the_origin_that_it_cannot_choose() {
    let own = Some("https://gw.example");
    let table = [
        (Some(ORIGIN), Some("cross-site"), own, Ok(ORIGIN)),
        (Some(ORIGIN), Some("same-origin"), own, Ok(ORIGIN)),
        (None, Some("same-origin"), own, Ok("https://gw.example")),
        (None, Some("same-origin"), None, Err(TicketError::NoOrigin)),
        (None, Some("same-site"), own, Err(TicketError::NoOrigin)),
        (None, Some("cross-site"), own, Err(TicketError::NoOrigin)),
        (None, Some("none"), own, Err(TicketError::NoOrigin)),
        (None, None, own, Err(TicketError::NoOrigin)),
    ];
    for (origin, site, own, page) in table {
        assert_eq!(page_of(origin, site, own), page, "{origin:?} {site:?}");
    }
}

#[test]
fn secrets_are_long_few_and_not_shown() {
    assert_eq!(TicketSecrets::new([&b"short"[..]]).unwrap_err(), TicketSecretsError::Length { length: 5 });
    assert_eq!(TicketSecrets::new([GATEWAY; MAX_TICKET_SECRETS + 1]).unwrap_err(), TicketSecretsError::TooMany);
    assert_eq!(format!("{:?}", *SECRETS), "TicketSecrets(1 of them)");
    let chat = chat();
    let ticket = issue(&room(&chat), &grant(&chat), NOW, ID).unwrap();
    assert_eq!(format!("{ticket:?}"), "TicketText(…)");
    assert_eq!(ID.to_string(), "ticket-BwcHBwcHBwcH");
}

#[test]
fn the_longest_ticket_fits() {
    let chat = chat();
    let longest = Grant { id: Some("x".repeat(MAX_TOKEN_ID)), issued_at: Some(u64::MAX), ..grant(&chat) };
    let ticket = issued(&chat, &longest);
    assert!(ticket.len() <= MAX_TICKET && used(&ticket, &room(&chat)).is_ok());
}

proptest! {
    #[test]
    fn no_bit_of_a_ticket_can_be_changed(at in 0..100_usize, to in "[A-Za-z0-9_.~%-]") {
        let chat = chat();
        let ticket = issued(&chat, &grant(&chat));
        let at = at % ticket.len();
        let changed = format!("{}{to}{}", &ticket[..at], &ticket[at + 1..]);
        prop_assert_eq!(used(&changed, &room(&chat)).is_ok(), changed == ticket);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,120}", bytes in prop::collection::vec(any::<u8>(), 0..90)) {
        let chat = chat();
        prop_assert!(used(&text, &room(&chat)).is_err());
        prop_assert!(used(&URL_SAFE_NO_PAD.encode(bytes), &room(&chat)).is_err());
    }
}

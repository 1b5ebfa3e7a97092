//! What never changes from one input to the next: projects, their keys, the time.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use tailwater_auth::{File, Moment, Project, Projects, TicketSecrets};
use tailwater_protocol::ProjectId;

/// Seconds since the Unix epoch.
pub(crate) const NOW: u64 = 1_800_000_000;
/// What the secret of `chat` and `twin` is.
pub(crate) const SECRET: &str = "the secret of chat: thirty-two bytes and more";
pub(crate) const MOMENT: Moment = Moment { now: NOW, skew: 30 };
pub(crate) const AUDIENCE: &str = "tailwater";
pub(crate) const ISSUER: &str = "https://login.example";
/// The `jti` that `chat` has revoked.
pub(crate) const STOLEN: &str = "stolen";

const DOCUMENT: &[u8] = include_bytes!("trust.toml");

/// With the projects of `trust.toml`.
pub(crate) static PROJECTS: LazyLock<Projects> = LazyLock::new(projects);
/// What the gateway signs tickets with where a project cannot.
pub(crate) static TICKET_SECRETS: LazyLock<TicketSecrets> = LazyLock::new(|| {
    let secret: &[u8] = b"the secret of the gateway: thirty-two bytes and more";
    TicketSecrets::new([secret]).expect("the secret is long enough")
});

/// The projects, with nothing remembered.
pub(crate) fn projects() -> Projects {
    Projects::parse([File { name: "trust.toml", bytes: DOCUMENT }]).expect("the document is right")
}

pub(crate) fn id(name: &str) -> ProjectId {
    ProjectId::parse(name).expect("the name is a project's")
}

pub(crate) fn project(name: &str) -> &'static Project {
    PROJECTS.get(&id(name)).expect("the project is in the document")
}

/// The token of these texts, signed with [`SECRET`].
pub(crate) fn signed(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = hs256(&message);
    format!("{message}.{signature}")
}

/// The signature that [`SECRET`] makes.
pub(crate) fn hs256(message: &str) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("a secret signs whatever it is given")
}

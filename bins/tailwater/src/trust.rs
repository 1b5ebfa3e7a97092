//! `tailwater project` and `tailwater token`: making and looking at projects and tokens. Nothing here talks to a gateway.

use std::{
    fmt::Write as _,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use tailwater_auth::{
    Key, KeyId, MAX_TOKEN, Moment, NewToken, Origins, Project, Projects, Scope, SigningKey, TokenError, inspect, mint,
};
use tailwater_protocol::ProjectId;
use tailwater_server::guard;
use zeroize::Zeroizing;

use crate::{keys::KeyCommand, secret, settings::Span};

/// Make projects and look at them
#[derive(Debug, Subcommand)]
pub(crate) enum ProjectCommand {
    /// Print a new project with a new secret, to be put into a file that --projects names
    New(NewProject),
    /// Read projects as the gateway would, and list them without their secrets
    List {
        /// The file or directory
        #[arg(value_name = "FILE_OR_DIR")]
        projects: PathBuf,
    },
    /// Change the keys of a project in its file, or list them
    #[command(subcommand)]
    Key(KeyCommand),
}

/// Make tokens and look into them
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print a new token
    Mint(Box<Mint>),
    /// Show what the token on standard input says, and with --projects whether it counts
    Inspect {
        /// The projects that it may be for
        #[arg(long, value_name = "FILE_OR_DIR")]
        projects: Option<PathBuf>,
        /// How far the clock of whoever made it may be off
        #[arg(long, value_name = "DURATION", default_value = "30s")]
        token_skew: Span,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NewProject {
    /// Its id, which paths name
    #[arg(value_name = "PROJECT")]
    id: String,
    /// Who sees a stream whose creator does not say
    #[arg(long, value_name = "WHO", value_enum, default_value_t = Shown::Private)]
    visibility: Shown,
    /// An origin whose pages may see answers, or `*` for all; repeat it for more
    #[arg(long, value_name = "ORIGIN")]
    origin: Vec<String>,
    /// What tokens call the secret
    #[arg(long, value_name = "ID", default_value = "1")]
    key_id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Mint {
    /// The projects, as the gateway has them
    #[arg(long, value_name = "FILE_OR_DIR")]
    projects: PathBuf,
    /// The project that it is for
    #[arg(long, value_name = "PROJECT")]
    project: String,
    /// What it allows; repeat it for more
    #[arg(long, value_name = "SCOPE", required = true, value_parser = scope)]
    scope: Vec<Scope>,
    /// A stream, or a pattern such as `chat/*`, `chat/**` or `user-1*`, that it is for; repeat it for more [default: all]
    #[arg(long, value_name = "PATTERN")]
    stream: Vec<String>,
    /// How long it lasts
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    expires_in: Span,
    /// By which name it can be revoked [default: a random one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// A private key, PEM, PKCS#8, whose public one the project has [default: the secret that is the project's first key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// What the project calls that key
    #[arg(long, value_name = "ID", requires = "key")]
    key_id: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shown {
    Public,
    Private,
}

impl ProjectCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::New(new) => print(&new.table()?),
            Self::List { projects } => {
                let projects = read(&projects)?;
                print(&listed(&projects))
            }
            Self::Key(command) => command.run(),
        }
    }
}

impl TokenCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Mint(asked) => print(&(asked.minted(now()?)? + "\n")),
            Self::Inspect { projects, token_skew } => {
                let mut token = Zeroizing::new(String::new());
                // One byte more than a token may have is enough to see that it is too long.
                let limit = u64::try_from(2 * MAX_TOKEN)?;
                io::stdin().lock().take(limit).read_to_string(&mut token).context("standard input cannot be read")?;
                let projects = projects.as_deref().map(read).transpose()?;
                let moment = Moment { now: now()?, skew: token_skew.0.as_secs() };
                print(&inspected(token.trim(), projects.as_ref(), moment))
            }
        }
    }
}

impl NewProject {
    /// The project as a table of TOML, checked by reading it back.
    fn table(&self) -> anyhow::Result<String> {
        ProjectId::parse(&self.id)?;
        KeyId::parse(&self.key_id)?;
        Origins::parse(self.origin.iter().map(String::as_str))?;
        let mut table = format!("[[project]]\nid = \"{}\"\n", self.id);
        let visibility = match self.visibility {
            Shown::Public => "public",
            Shown::Private => "private",
        };
        writeln!(table, "visibility = \"{visibility}\"")?;
        if !self.origin.is_empty() {
            writeln!(table, "origins = {:?}", self.origin)?;
        }
        let secret = random_secret();
        writeln!(
            table,
            "\n[[project.key]]\nid = \"{}\"\nalgorithm = \"HS256\"\nsecret = \"{}\"",
            self.key_id, *secret
        )?;
        Ok(table)
    }
}

impl Mint {
    fn minted(&self, now: u64) -> anyhow::Result<String> {
        let projects = read(&self.projects)?;
        let id = ProjectId::parse(&self.project)?;
        let Some(project) = projects.get(&id) else { bail!("there is no project `{id}`") };
        let key = match &self.key {
            Some(file) => {
                let id = self.key_id.as_deref().map(KeyId::parse).transpose()?;
                let pem = secret::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
                SigningKey::private(id, &pem).with_context(|| file.display().to_string())?
            }
            None => project
                .keys
                .first()
                .and_then(Key::signing)
                .context("the project has no secret that signs: name a private key with --key")?,
        };
        let token = NewToken {
            project: id,
            scopes: self.scope.iter().copied().collect(),
            streams: (!self.stream.is_empty()).then(|| self.stream.clone()),
            issued_at: now,
            expires_at: now.saturating_add(self.expires_in.0.as_secs()),
            not_before: None,
            audience: project.audience.clone(),
            issuer: project.issuer.clone(),
            id: Some(self.id.clone().unwrap_or_else(|| hex(&rand::random::<[u8; 16]>()))),
        };
        let minted = mint(&key, &token)?;
        // Such as one that is signed with a key which the project does not have.
        project.verify(&minted, Moment { now, skew: 0 }).context("the gateway would not take the token")?;
        Ok(minted)
    }
}

/// The projects of a place, as the gateway would read them.
pub(crate) fn read(place: &Path) -> anyhow::Result<Projects> {
    Ok(guard::read(place)?)
}

fn listed(projects: &Projects) -> String {
    let mut all: Vec<_> = projects.iter().map(line_of).collect();
    all.sort();
    all.concat()
}

fn line_of(project: &Project) -> String {
    let issuers = project.jwks.as_ref().map(|url| format!("those at {}", url.without_query()));
    let keys: Vec<_> = project.keys.iter().map(named).chain(issuers).collect();
    let visibility = project.visibility.as_str();
    let origins = match &project.origins {
        Origins::Closed => "none".to_owned(),
        Origins::Any => "*".to_owned(),
        Origins::Only(origins) => origins.join(" "),
    };
    let revoked = project.revoked.len();
    format!("{}: {visibility}; keys {}; origins {origins}; {revoked} tokens revoked\n", project.id, keys.join(" "))
}

/// A key without its secret.
pub(crate) fn named(key: &Key) -> String {
    format!("{}({})", key.id().map_or("-", KeyId::as_str), key.algorithm())
}

/// What a token says. Of its signature only whether it is one.
fn inspected(token: &str, projects: Option<&Projects>, moment: Moment) -> String {
    let shown = inspect(token);
    let json = |part: Option<serde_json::Value>| part.map_or_else(|| "not json".to_owned(), |part| format!("{part:#}"));
    let subject = shown.claims.as_ref().and_then(|claims| claims["sub"].as_str()).map(ProjectId::parse);
    let mut text = format!("header: {}\nclaims: {}\n", json(shown.header), json(shown.claims));
    let verdict = match (shown.form, projects, subject) {
        (Err(error), _, _) => format!("it does not count: {error}"),
        (Ok(()), None, _) => "whether it counts was not asked: name the --projects".to_owned(),
        (Ok(()), Some(projects), Some(Ok(project))) => match projects.verify(&project, token, moment) {
            Ok(grant) => format!("it counts for {} more seconds", grant.expires_at.saturating_sub(moment.now)),
            Err(TokenError::Unverified) if projects.get(&project).is_some_and(|project| project.jwks.is_some()) => {
                "no key of the project's own verifies it; its issuer's keys are not fetched here".to_owned()
            }
            Err(error) => format!("it does not count: {error}"),
        },
        (Ok(()), Some(_), _) => "it does not count: `sub` names no project".to_owned(),
    };
    text.push_str(&verdict);
    text.push('\n');
    text
}

fn scope(name: &str) -> Result<Scope, String> {
    Scope::named(name).ok_or_else(|| "a scope is read, write or manage".to_owned())
}

/// 256 random bits, as text.
pub(crate) fn random_secret() -> Zeroizing<String> {
    Zeroizing::new(hex(&rand::random::<[u8; 32]>()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Infallible: a string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn now() -> anyhow::Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?.as_secs())
}

pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;
    use tempfile::{TempDir, tempdir};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[derive(Debug, Parser)]
    struct Line<C: Subcommand> {
        #[command(subcommand)]
        command: C,
    }

    fn project(args: &[&str]) -> NewProject {
        match Line::<ProjectCommand>::try_parse_from([&["project", "new"], args].concat()).unwrap().command {
            ProjectCommand::New(new) => new,
            other @ (ProjectCommand::List { .. } | ProjectCommand::Key(_)) => panic!("{other:?}"),
        }
    }

    fn minted(file: &Path, args: &[&str]) -> anyhow::Result<String> {
        let start = ["token", "mint", "--projects", file.to_str().unwrap()];
        match Line::<TokenCommand>::try_parse_from([&start, args].concat())?.command {
            TokenCommand::Mint(asked) => asked.minted(NOW),
            other @ TokenCommand::Inspect { .. } => panic!("{other:?}"),
        }
    }

    fn written(text: &str) -> (TempDir, PathBuf) {
        let directory = tempdir().unwrap();
        let file = directory.path().join("p.toml");
        fs::write(&file, text).unwrap();
        (directory, file)
    }

    #[test]
    fn a_new_project_is_read_as_it_was_asked_for_and_no_two_have_a_secret_in_common() {
        let table = |id| project(&[id, "--visibility", "public", "--origin", "https://a.example"]).table().unwrap();
        assert_ne!(table("a"), table("a"));
        let (_directory, file) = written(&(table("a") + &project(&["b"]).table().unwrap()));
        let listed = listed(&read(&file).unwrap());
        assert_eq!(
            listed,
            "a: public; keys 1(HS256); origins https://a.example; 0 tokens revoked\n\
             b: private; keys 1(HS256); origins none; 0 tokens revoked\n"
        );
        for wrong in [&["admin"][..], &["a\"b"], &["a", "--origin", "a.example"], &["a", "--key-id", "a b"]] {
            assert!(project(wrong).table().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_token_is_minted_and_looked_into() {
        let (_directory, file) = written(&project(&["a"]).table().unwrap());
        let args =
            ["--project", "a", "--scope", "read", "--scope", "write", "--stream", "chat/*", "--expires-in", "1m"];
        let token = minted(&file, &args).unwrap();
        let projects = read(&file).unwrap();
        let at = |now| inspected(&token, Some(&projects), Moment { now, skew: 0 });
        assert!(at(NOW).ends_with("\nit counts for 60 more seconds\n"), "{}", at(NOW));
        assert!(at(NOW + 60).ends_with("\nit does not count: the token has expired\n"));
        let shown = at(NOW);
        for part in ["\"scope\": \"read write\"", "\"chat/*\"", "\"kid\": \"1\"", "\"jti\""] {
            assert!(shown.contains(part), "{part} {shown}");
        }
        assert!(!shown.contains(token.rsplit_once('.').unwrap().1), "no signature");
        assert!(inspected(&token, None, Moment { now: NOW, skew: 0 }).contains("was not asked"));
        assert!(inspected("junk", None, Moment { now: NOW, skew: 0 }).contains("header: not json"));
    }

    #[test]
    fn no_token_is_minted_that_the_gateway_would_not_take() {
        let (directory, file) = written(&project(&["a"]).table().unwrap());
        let table: [(&[&str], &str); 5] = [
            (&["--project", "b", "--scope", "read"], "there is no project"),
            (&["--project", "a", "--scope", "admin"], "a scope is"),
            (&["--project", "a"], "--scope"),
            (&["--project", "a", "--scope", "read", "--stream", "a*b"], "stream restriction"),
            (&["--project", "a", "--scope", "read", "--expires-in", "0s"], "would expire"),
        ];
        for (args, fault) in table {
            let error = format!("{:#}", minted(&file, args).unwrap_err());
            assert!(error.contains(fault), "{error}");
        }
        let reading = ["--project", "a", "--scope", "read"];
        let token = minted(&file, &[&reading[..], &["--id", "a"]].concat()).unwrap();
        let error = format!("{:#}", minted(&file, &[&reading[..], &["--id", &token]].concat()).unwrap_err());
        assert!(error.contains("a token or a ticket itself") && !error.contains(&token), "{error}");
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let key = directory.path().join("key.pem");
        fs::write(&key, pair.serialize_pem()).unwrap();
        let with_key = ["--project", "a", "--scope", "read", "--key", key.to_str().unwrap()];
        assert!(format!("{:#}", minted(&file, &with_key).unwrap_err()).contains("would not take"));
        let public = format!(
            "[[project]]\nid = 'a'\n[[project.key]]\nid = 'e'\nalgorithm = 'EdDSA'\npublic-key = '''\n{}'''\n",
            pair.public_key_pem()
        );
        fs::write(&file, public).unwrap();
        assert!(minted(&file, &[&with_key[..], &["--key-id", "e"]].concat()).is_ok());
        assert!(format!("{:#}", minted(&file, &with_key[..4]).unwrap_err()).contains("--key"));
    }
}

//! `tailwater project key`: other keys in the files of projects.
//!
//! A file is replaced as a whole, so a gateway that looks at it sees all of the change or nothing, and only if the gateway
//! would take what comes out. It keeps its owner and group, and whether the group may read it: that is how a gateway may
//! that is not its owner. Others may not. What somebody else changes meanwhile is not lost: the command fails instead.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::Write as _,
    mem,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use tailwater_auth::{
    File as Document, KeyId, Projects, Rekeyed, rekey,
    rekey::{NewKey, holds},
};
use tailwater_protocol::ProjectId;
use tailwater_server::guard;
use zeroize::Zeroizing;

use crate::{
    secret,
    trust::{named, print, random_secret, read},
};

/// Who may read a file of secrets while it is written.
const OWNER_ALONE: u32 = 0o600;
/// What it keeps of who might before.
const KEPT_MODE: u32 = 0o640;
/// What is said where it is not what it was.
const CHANGED: &str = "it was changed meanwhile; nothing was written, and another try sees what it is now";

/// Change the keys of a project in its file, or list them
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Add a key, which then verifies tokens: a new secret, or a public key
    Add(Box<Add>),
    /// Make a key the first one, which signs
    Promote(Named),
    /// List the keys in their order, without secrets
    List(OfProject),
    /// Take a key away: tokens that it has signed count no more. The last one stays
    Remove(Named),
}

#[derive(Debug, Args)]
pub(crate) struct OfProject {
    /// The file or directory of projects
    #[arg(value_name = "FILE_OR_DIR")]
    place: PathBuf,
    /// The project
    #[arg(value_name = "PROJECT")]
    project: String,
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    #[command(flatten)]
    of: OfProject,
    /// What tokens call the key
    #[arg(value_name = "KEY")]
    key: String,
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    #[command(flatten)]
    named: Named,
    /// A public key for RS256, ES256 or EdDSA, PEM [default: a new secret for HS256]
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Make it the first key, which signs
    #[arg(long)]
    first: bool,
}

impl KeyCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(of) => print(&of.listed()?),
            Self::Add(add) => add.named.of.change(&add.change()?),
            Self::Promote(named) => named.of.change(&Rekeyed::Promoted(named.id()?)),
            Self::Remove(named) => named.of.change(&Rekeyed::Removed(named.id()?)),
        }
    }
}

impl Named {
    fn id(&self) -> anyhow::Result<KeyId> {
        Ok(KeyId::parse(&self.key)?)
    }
}

impl Add {
    fn change(&self) -> anyhow::Result<Rekeyed> {
        let key = match &self.public_key {
            None => NewKey::Secret(random_secret()),
            Some(file) => {
                let pem = secret::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
                NewKey::public(&pem).with_context(|| format!("{} holds no public key that is taken", file.display()))?
            }
        };
        Ok(Rekeyed::Added { id: self.named.id()?, key, signs: self.first })
    }
}

impl OfProject {
    fn listed(&self) -> anyhow::Result<String> {
        let (projects, id) = (read(&self.place)?, ProjectId::parse(&self.project)?);
        let Some(project) = projects.get(&id) else { bail!("there is no project `{id}`") };
        let line = |(at, key)| format!("{}{}\n", named(key), if at == 0 { " first" } else { "" });
        Ok(project.keys.iter().enumerate().map(line).collect())
    }

    /// Changes the file that has the project.
    fn change(&self, change: &Rekeyed) -> anyhow::Result<()> {
        let id = ProjectId::parse(&self.project)?;
        let mut files = Vec::new();
        for path in guard::files(&self.place)? {
            let text = secret::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            files.push((text, path));
        }
        let Some(at) = files.iter().position(|(text, _)| holds(text, &id)) else {
            bail!("there is no project `{id}` whose keys are written as [[project.key]]");
        };
        let new = rekey(&files[at].0, &id, change)?;
        let before = mem::replace(&mut files[at].0, new);
        let names: Vec<_> = files.iter().map(|(_, path)| path.display().to_string()).collect();
        let documents = files.iter().zip(&names).map(|((text, _), name)| Document { name, bytes: text.as_bytes() });
        Projects::parse(documents).context("the gateway would not take what comes out")?;
        let (text, path) = &files[at];
        replace(path, before.as_bytes(), text.as_bytes())
            .with_context(|| format!("{} cannot be written", path.display()))
    }
}

/// Replaces a file that holds this. Where a link leads to it, the link stays.
fn replace(path: &Path, before: &[u8], bytes: &[u8]) -> anyhow::Result<()> {
    let path = fs::canonicalize(path)?;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { bail!("it is no file") };
    // One command at a time goes from the look to the renaming; the lock goes with the handle.
    let opened = File::open(folder)?;
    opened.lock().context("its folder cannot be locked")?;
    if *Zeroizing::new(fs::read(&path)?) != before {
        bail!("{CHANGED}");
    }
    // Hidden, so that no gateway takes it for a file of projects.
    let aside = folder.join(format!(".{}.{}", name.to_string_lossy(), process::id()));
    let written = write_aside(&aside, &path, bytes).and_then(|()| Ok(fs::rename(&aside, &path)?));
    if written.is_err() {
        // What it holds are secrets. Where it is not there, it was not made.
        fs::remove_file(&aside).ok();
    }
    written?;
    Ok(opened.sync_all()?)
}

fn write_aside(aside: &Path, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let before = fs::metadata(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(OWNER_ALONE).open(aside)?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (before.uid(), before.gid()) {
        fchown(&file, Some(before.uid()), Some(before.gid())).context("its owner cannot be kept")?;
    }
    file.set_permissions(Permissions::from_mode(before.mode() & KEPT_MODE))?;
    file.write_all(bytes)?;
    Ok(file.sync_all()?)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, thread};

    use clap::Parser;
    use tempfile::tempdir;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: KeyCommand,
    }

    fn run(args: &[&str], place: &Path) -> anyhow::Result<()> {
        let (verb, rest) = args.split_first().unwrap();
        let args = [&["key", verb, place.to_str().unwrap()], rest].concat();
        Line::try_parse_from(args)?.command.run()
    }

    fn listed(place: &Path, project: &str) -> String {
        OfProject { place: place.to_owned(), project: project.to_owned() }.listed().unwrap()
    }

    fn project(id: &str) -> String {
        let secret = "hunter2".repeat(8);
        format!(
            "# {id}\n[[project]]\nid = '{id}'\n[[project.key]]\nid = 'old'\nalgorithm = 'HS256'\nsecret = '{secret}'\n"
        )
    }

    #[test]
    fn a_key_is_rotated_in_its_file() {
        let directory = tempdir().unwrap();
        let (file, link) = (directory.path().join("p.toml"), directory.path().join("link.toml"));
        fs::write(&file, project("a") + &project("b")).unwrap();
        symlink("p.toml", &link).unwrap();
        run(&["add", "a", "new"], &link).unwrap();
        assert_eq!(listed(&file, "a"), "old(HS256) first\nnew(HS256)\n");
        run(&["promote", "a", "new"], &file).unwrap();
        run(&["remove", "a", "old"], &file).unwrap();
        assert_eq!(
            (listed(&file, "a").as_str(), listed(&file, "b").as_str()),
            ("new(HS256) first\n", "old(HS256) first\n")
        );
        run(&["add", "a", "newer", "--first"], &file).unwrap();
        assert_eq!(listed(&file, "a"), "newer(HS256) first\nnew(HS256)\n");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing is left aside");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("# a\n") && text.contains("# b\n"), "{text}");
    }

    #[test]
    fn who_could_read_a_file_still_can_but_for_the_rest_of_the_world() {
        let directory = tempdir().unwrap();
        let file = directory.path().join("p.toml");
        for (before, after) in [(0o600, 0o600), (0o640, 0o640), (0o644, 0o640), (0o666, 0o640), (0o400, 0o400)] {
            fs::write(&file, project("a")).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(before)).unwrap();
            run(&["add", "a", "new"], &file).unwrap();
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, after, "{before:o}");
            fs::remove_file(&file).unwrap();
        }
    }

    #[test]
    fn what_was_changed_meanwhile_is_not_overwritten() {
        let directory = tempdir().unwrap();
        let file = directory.path().join("p.toml");
        fs::write(&file, project("a") + &project("b")).unwrap();
        let error = replace(&file, project("a").as_bytes(), b"nonsense").unwrap_err();
        assert_eq!(error.to_string(), CHANGED);
        assert_eq!(fs::read_to_string(&file).unwrap(), project("a") + &project("b"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left aside");
    }

    #[test]
    fn commands_at_once_lose_nothing_of_each_other() {
        let directory = tempdir().unwrap();
        let file = directory.path().join("p.toml");
        fs::write(&file, project("a")).unwrap();
        let ids = ["1", "2", "3", "4", "5", "6"];
        thread::scope(|scope| {
            for id in ids {
                let file = &file;
                scope.spawn(move || {
                    while let Err(error) = run(&["add", "a", id], file) {
                        assert_eq!(error.root_cause().to_string(), CHANGED);
                    }
                });
            }
        });
        let mut listed: Vec<_> = listed(&file, "a").lines().skip(1).map(str::to_owned).collect();
        listed.sort();
        assert_eq!(listed, ids.map(|id| format!("{id}(HS256)")));
    }

    #[test]
    fn of_a_directory_the_file_that_has_the_project_is_changed() {
        let directory = tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        fs::write(file("a.toml"), project("a")).unwrap();
        fs::write(file("b.toml"), project("b")).unwrap();
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        fs::write(file("key.pem"), pair.public_key_pem()).unwrap();
        run(&["add", "b", "public", "--public-key", file("key.pem").to_str().unwrap()], directory.path()).unwrap();
        assert_eq!(listed(directory.path(), "b"), "old(HS256) first\npublic(EdDSA)\n");
        assert_eq!(fs::read_to_string(file("a.toml")).unwrap(), project("a"));
    }

    #[test]
    fn what_the_gateway_would_not_take_is_not_written() {
        let directory = tempdir().unwrap();
        let file = directory.path().join("p.toml");
        fs::write(&file, project("a")).unwrap();
        let table: [(&[&str], &str); 6] = [
            (&["remove", "a", "old"], "the last one stays"),
            (&["remove", "a", "other"], "no key has the id `other`"),
            (&["add", "a", "old"], "two keys have the id"),
            (&["add", "b", "new"], "there is no project `b`"),
            (&["add", "a", "a b"], "a key's id is"),
            (&["add", "a", "new", "--public-key", "nowhere"], "cannot be read"),
        ];
        for (args, fault) in table {
            let error = format!("{:#}", run(args, &file).unwrap_err());
            assert!(error.contains(fault) && !error.contains("hunter2"), "{error}");
        }
        fs::write(&file, project("a") + "nonsense = 1\n").unwrap();
        let error = format!("{:#}", run(&["add", "a", "new"], &file).unwrap_err());
        assert!(error.contains("would not take"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), project("a") + "nonsense = 1\n");
    }
}

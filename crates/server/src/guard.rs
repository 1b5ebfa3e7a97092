//! Whether tokens are asked for, and the projects that are trusted: files that may be replaced while the program runs.
//!
//! A file, or a directory of which every `*.toml` counts (a Kubernetes secret that is mounted, say). They are looked at
//! every few seconds, and read together when one has changed. What cannot be read, or is wrong, is said once, not used, and
//! tried again: the projects of before stay until it is right.
//!
//! Beside them there are the projects of the register (`registered`), where one is followed.

mod registered;

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use tailwater_auth::{BasinName, DocumentError, File, Grant, Moment, Projects, TicketHeld, TokenError};
use tailwater_protocol::ProjectId;
use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use zeroize::Zeroizing;

use self::registered::Registered;
use crate::issuers::{Issuers, NoGrant, Unlisted};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How the files of a directory that count end.
const EXTENSION: &str = "toml";

/// Who may do anything at all.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Everybody. For loopback, and for networks in which everybody is trusted.
    #[default]
    Open,
    /// Who has a token of a project that is trusted; others may read what is public.
    Required(Guard),
}

/// The projects that are trusted; a cheap clone.
#[derive(Clone)]
pub struct Guard(Arc<Trusted>);

/// Why projects cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// A file or directory cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What they hold is wrong.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A project's streams would be elsewhere than they are.
    #[error("the basin of project `{project}` is settled when the program starts; a restart would change it")]
    Moved {
        /// The project.
        project: ProjectId,
    },
    /// A project's issuer has its keys where none are fetched from.
    #[error(transparent)]
    Unlisted(#[from] Unlisted),
}

/// What a look at the files has come to.
#[derive(Debug)]
enum Looked {
    /// They are as they were, or as wrong as they were.
    Same,
    /// The new projects are in force.
    Replaced,
    /// The new ones are broken, and the old ones in force.
    Kept(GuardError),
}

struct Trusted {
    /// Where the projects come from; nowhere, for those of a test.
    place: Option<PathBuf>,
    skew: Duration,
    in_force: RwLock<Arc<Projects>>,
    /// Rings for all that may end what was granted before, once it is in force.
    changes: watch::Sender<()>,
    seen: Mutex<Seen>,
    /// Where the streams of projects are that say so, for as long as the process lives.
    basins: HashMap<ProjectId, BasinName>,
    registered: Registered,
    /// Whose keys count beside the projects' own.
    issuers: Issuers,
}

/// What the looks at the files have come to.
struct Seen {
    /// Of the files that the projects in force were read from.
    in_force: Stamp,
    /// What was said last of files that are not in force, and of which.
    said: Option<(Stamp, String)>,
}

/// What changes when a file is written, replaced, or given to other readers, comes or goes.
type Stamp = Vec<(PathBuf, Option<Mark>)>;

/// Of a file.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    modified: SystemTime,
    /// When it, its owner or its mode changed last: seconds and nanoseconds.
    changed: (i64, i64),
    length: u64,
    inode: u64,
}

impl Guard {
    /// Reads projects from a file, or from the files of a directory. A clock of whoever makes tokens may be off by `skew`;
    /// keys of issuers are fetched from where `issuers` may.
    ///
    /// # Errors
    /// [`GuardError`].
    pub fn load(place: &Path, skew: Duration, issuers: Issuers) -> Result<Self, GuardError> {
        // Taken before the reading: what changes meanwhile is seen the next time.
        let seen = stamp(place);
        let projects = read(place)?;
        issuers.check(projects.iter())?;
        Ok(Self::from_parts(Some(place.to_owned()), projects, skew, seen, issuers))
    }

    /// No projects but those of the register.
    #[must_use]
    pub fn without_files(skew: Duration, issuers: Issuers) -> Self {
        Self::fixed_with(Projects::default(), skew, issuers)
    }

    /// Projects that never change, but for those of the register.
    #[must_use]
    pub fn fixed(projects: Projects, skew: Duration) -> Self {
        Self::fixed_with(projects, skew, Issuers::none())
    }

    /// The same with keys of issuers, as far as these may be fetched.
    #[must_use]
    pub fn fixed_with(projects: Projects, skew: Duration, issuers: Issuers) -> Self {
        Self::from_parts(None, projects, skew, Stamp::default(), issuers)
    }

    fn from_parts(place: Option<PathBuf>, projects: Projects, skew: Duration, seen: Stamp, issuers: Issuers) -> Self {
        issuers.configure(&projects);
        let basins = projects.iter().filter_map(|project| Some((project.id.clone(), project.basin.clone()?))).collect();
        let (changes, projects) = (watch::Sender::default(), Arc::new(projects));
        let (registered, in_force) = (Registered::beside(Arc::clone(&projects)), RwLock::new(projects));
        let seen = Mutex::new(Seen { in_force: seen, said: None });
        Self(Arc::new(Trusted { place, skew, in_force, changes, seen, basins, registered, issuers }))
    }

    /// The projects in force.
    #[must_use]
    pub fn projects(&self) -> Arc<Projects> {
        Arc::clone(&self.0.in_force.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells that something has changed since a subscription: what was granted before may not [count](Self::counts) any
    /// more. Whoever looks again then sees what has changed.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Whether what was granted for a token, or for a ticket that was got with it, still counts.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn counts(&self, grant: &Grant, ticket: Option<TicketHeld>, now_ms: u64) -> Result<(), TokenError> {
        self.counts_by(&self.projects(), grant, ticket, now_ms)
    }

    /// The same by these projects, for who judges something else by them, too.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn counts_by(
        &self,
        projects: &Projects,
        grant: &Grant,
        ticket: Option<TicketHeld>,
        now_ms: u64,
    ) -> Result<(), TokenError> {
        // First: one who only does not count yet, by a clock that was set back, may go on.
        if self.revokes(grant, ticket) {
            return Err(TokenError::Revoked);
        }
        let is_issuers =
            |key| projects.get(&grant.project).is_some_and(|project| self.issuers().still_have(project, key));
        projects.check(grant, ticket, self.moment(now_ms), is_issuers)
    }

    /// How long after what its token says a grant ends, in seconds.
    pub(crate) fn skew(&self) -> u64 {
        self.0.skew.as_secs()
    }

    /// Whose keys count beside the projects' own.
    #[must_use]
    pub fn issuers(&self) -> &Issuers {
        &self.0.issuers
    }

    /// What a token lets its bearer do in a project at this moment. It waits where keys of the project's issuer have to be
    /// fetched for that.
    ///
    /// # Errors
    /// [`NoGrant`], where it does not count, or nobody knows.
    pub(crate) async fn grant(
        &self,
        projects: &Projects,
        project: &ProjectId,
        token: &str,
        moment: Moment,
    ) -> Result<Arc<Grant>, NoGrant> {
        let grant = self.0.issuers.grant(projects, project, token, moment).await?;
        if self.revokes(&grant, None) { Err(TokenError::Revoked.into()) } else { Ok(grant) }
    }

    /// When tokens are judged, at this time in milliseconds since the Unix epoch.
    pub(crate) fn moment(&self, now_ms: u64) -> Moment {
        Moment { now: now_ms / 1000, skew: self.0.skew.as_secs() }
    }

    /// Looks at the files for ever.
    pub(crate) async fn watch(self) {
        loop {
            sleep(LOOK_EVERY).await;
            self.look().await;
        }
    }

    /// Looks at the files now, and not when their turn has come.
    pub async fn look(&self) {
        let trusted = Arc::clone(&self.0);
        match spawn_blocking(move || trusted.look()).await {
            Ok(Looked::Same) => {}
            Ok(Looked::Replaced) => tracing::info!("the projects were replaced"),
            Ok(Looked::Kept(error)) => {
                let cause = error.source().map(ToString::to_string);
                tracing::warn!(%error, cause, "the projects were not replaced");
            }
            Err(error) => tracing::error!(%error, "the files of the projects were not looked at"),
        }
    }
}

impl Trusted {
    /// Reads the files if they are not those in force.
    fn look(&self) -> Looked {
        self.look_by(read)
    }

    fn look_by(&self, read: impl FnOnce(&Path) -> Result<Projects, GuardError>) -> Looked {
        let Some(place) = &self.place else { return Looked::Same };
        let stamp = stamp(place);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.in_force == stamp {
            seen.said = None;
            return Looked::Same;
        }
        match read(place).and_then(|projects| self.settled(projects)) {
            Ok(projects) => {
                *seen = Seen { in_force: stamp, said: None };
                self.take_files(projects);
                Looked::Replaced
            }
            // It is read again the next time, although nothing that can be seen may have changed until then.
            Err(error) => {
                let said = Some((stamp, format!("{error}: {:?}", error.source().map(ToString::to_string))));
                if seen.said == said {
                    return Looked::Same;
                }
                seen.said = said;
                Looked::Kept(error)
            }
        }
    }

    fn replace(&self, projects: Arc<Projects>) {
        self.issuers.configure(&projects);
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = projects;
        self.changes.send_replace(());
    }

    /// The projects, unless the streams of one would be elsewhere than the process has put them, or the keys of one where
    /// none are fetched from.
    fn settled(&self, projects: Projects) -> Result<Projects, GuardError> {
        self.issuers.check(projects.iter())?;
        let moved = projects.iter().find(|project| project.basin.as_ref() != self.basins.get(&project.id));
        match moved.map(|project| project.id.clone()) {
            Some(project) => Err(GuardError::Moved { project }),
            None => Ok(projects),
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.0.place).finish()
    }
}

/// Reads the projects that stand at a place, whatever a gateway would say about their issuers.
///
/// # Errors
/// [`GuardError`].
pub fn read(place: &Path) -> Result<Projects, GuardError> {
    let mut contents = Vec::new();
    for path in files(place)? {
        contents.push((path.display().to_string(), read_file(&path)?));
    }
    Ok(Projects::parse(contents.iter().map(|(name, bytes)| File { name, bytes }))?)
}

/// What was read wipes itself.
const _: fn(&Path) -> Result<Zeroizing<Vec<u8>>, GuardError> = read_file;

/// Secrets stand there, and what was read is not needed once it is understood.
fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, GuardError> {
    fs::read(path).map(Zeroizing::new).map_err(|source| unreadable(path, source))
}

/// The file itself, or what counts of a directory, by name. What is hidden does not count: that is how mounted secrets
/// keep their older versions.
///
/// # Errors
/// [`GuardError::Unreadable`].
pub fn files(place: &Path) -> Result<Vec<PathBuf>, GuardError> {
    let metadata = fs::metadata(place).map_err(|source| unreadable(place, source))?;
    if !metadata.is_dir() {
        return Ok(vec![place.to_owned()]);
    }
    let entries = fs::read_dir(place).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let paths = entries.map_err(|source| unreadable(place, source))?.into_iter().map(|entry| entry.path());
    let hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let counts = |path: &PathBuf| path.extension().is_some_and(|extension| extension == EXTENSION) && !hidden(path);
    let mut paths: Vec<_> = paths.filter(counts).collect();
    paths.sort();
    Ok(paths)
}

fn stamp(place: &Path) -> Stamp {
    let mark = |metadata: Metadata| {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Some(Mark { modified: metadata.modified().ok()?, changed, length: metadata.len(), inode: metadata.ino() })
    };
    let of = |path: PathBuf| {
        let mark = fs::metadata(&path).ok().and_then(mark);
        (path, mark)
    };
    files(place).unwrap_or_default().into_iter().map(of).collect()
}

fn unreadable(path: &Path, source: io::Error) -> GuardError {
    GuardError::Unreadable { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::Permissions,
        os::unix::fs::{PermissionsExt as _, symlink},
        time::Instant,
    };

    use tempfile::tempdir;

    use super::*;

    fn project(id: &str) -> String {
        let secret = "hunter2".repeat(8);
        format!("[[project]]\nid = '{id}'\n[[project.key]]\nalgorithm = 'HS256'\nsecret = '{secret}'\n")
    }

    fn ids(guard: &Guard) -> Vec<String> {
        let mut ids: Vec<_> = guard.projects().iter().map(|project| project.id.to_string()).collect();
        ids.sort();
        ids
    }

    fn loaded(place: &Path) -> Result<Guard, GuardError> {
        Guard::load(place, Duration::from_secs(30), Issuers::none())
    }

    #[test]
    fn a_file_is_read_again_when_it_was_replaced_and_kept_when_that_is_broken() {
        let directory = tempdir().unwrap();
        let file = directory.path().join("projects.toml");
        let replace = |text: &str| {
            let aside = file.with_extension("new");
            fs::write(&aside, text).unwrap();
            fs::rename(&aside, &file).unwrap();
        };
        replace(&project("a"));
        let guard = loaded(&file).unwrap();
        let before = guard.projects();
        assert!(matches!(guard.0.look(), Looked::Same));
        replace("nonsense = 1");
        assert!(matches!(guard.0.look(), Looked::Kept(GuardError::Document(_))));
        assert!(matches!(guard.0.look(), Looked::Same), "said once");
        assert_eq!(ids(&guard), ["a"]);
        replace(&(project("a") + &project("b")));
        assert!(matches!(guard.0.look(), Looked::Replaced));
        assert_eq!(ids(&guard), ["a", "b"]);
        assert!(before.get(&ProjectId::parse("b").unwrap()).is_none(), "who has asked already sees what was");
        fs::remove_file(&file).unwrap();
        assert!(matches!(guard.0.look(), Looked::Kept(GuardError::Unreadable { .. })));
        assert_eq!(ids(&guard), ["a", "b"]);
    }

    #[test]
    fn a_change_is_told_once_it_is_in_force_and_what_is_kept_is_none() {
        let directory = tempdir().unwrap();
        let file = directory.path().join("projects.toml");
        fs::write(&file, project("a")).unwrap();
        let guard = loaded(&file).unwrap();
        let changes = guard.changes();
        for (text, changed) in [("nonsense = 1".to_owned(), false), (project("a") + &project("b"), true)] {
            fs::write(&file, text).unwrap();
            guard.0.look();
            assert_eq!(changes.has_changed().unwrap(), changed);
        }
        assert!(!guard.changes().has_changed().unwrap(), "whoever comes later sees it anyway");
    }

    #[test]
    fn what_could_not_be_read_is_tried_again_although_nothing_has_changed() {
        let directory = tempdir().unwrap();
        let file = directory.path().join("projects.toml");
        fs::write(&file, project("a")).unwrap();
        let guard = loaded(&file).unwrap();
        fs::write(&file, project("a") + &project("b")).unwrap();
        let fails = |kind: io::ErrorKind| guard.0.look_by(|place| Err(unreadable(place, kind.into())));
        assert!(matches!(fails(io::ErrorKind::PermissionDenied), Looked::Kept(GuardError::Unreadable { .. })));
        assert!(matches!(fails(io::ErrorKind::PermissionDenied), Looked::Same), "said once");
        assert!(matches!(fails(io::ErrorKind::TimedOut), Looked::Kept(_)), "another reason is said");
        assert_eq!(ids(&guard), ["a"]);
        assert!(matches!(guard.0.look(), Looked::Replaced));
        assert_eq!(ids(&guard), ["a", "b"]);
        assert!(matches!(fails(io::ErrorKind::TimedOut), Looked::Same), "what is in force is not read");
    }

    #[test]
    fn a_file_that_is_given_to_other_readers_has_changed() {
        let directory = tempdir().unwrap();
        let file = directory.path().join("projects.toml");
        fs::write(&file, project("a")).unwrap();
        let before = stamp(&file);
        assert_eq!(stamp(&file), before);
        // The clock of a file system has a grain.
        let until = Instant::now() + Duration::from_secs(5);
        while stamp(&file) == before && Instant::now() < until {
            fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        }
        assert_ne!(stamp(&file), before);
    }

    #[test]
    fn streams_stay_where_the_process_has_put_them() {
        let directory = tempdir().unwrap();
        let file = directory.path().join("projects.toml");
        let with_basin = |id: &str, basin: &str| {
            let (id, rest) = (format!("[[project]]\nid = '{id}'\n"), project(id).replacen("[[project]]\n", "", 1));
            let rest = rest.split_once('\n').unwrap().1.to_owned();
            format!("{id}basin = '{basin}'\n{rest}")
        };
        fs::write(&file, with_basin("a", "the-basin-of-a") + &project("b")).unwrap();
        let guard = loaded(&file).unwrap();
        let moved = [
            with_basin("a", "another-basin") + &project("b"),
            project("a") + &project("b"),
            with_basin("a", "the-basin-of-a") + &with_basin("b", "the-basin-of-b"),
            with_basin("a", "the-basin-of-a") + &with_basin("new", "the-basin-of-new"),
        ];
        for text in moved {
            fs::write(&file, &text).unwrap();
            assert!(matches!(guard.0.look(), Looked::Kept(GuardError::Moved { .. })), "{text}");
            assert_eq!(ids(&guard), ["a", "b"]);
        }
        for (text, left) in [(project("b"), vec!["b"]), (with_basin("a", "the-basin-of-a"), vec!["a"])] {
            fs::write(&file, &text).unwrap();
            assert!(matches!(guard.0.look(), Looked::Replaced), "{text}");
            assert_eq!(ids(&guard), left);
        }
    }

    #[test]
    fn a_project_whose_issuer_is_not_listed_is_refused_by_name() {
        let directory = tempdir().unwrap();
        let file = directory.path().join("projects.toml");
        let with_issuer =
            "[[project]]\nid = 'a'\nissuer = 'i'\n[project.jwks]\nurl = 'https://login.example:8443/secret'\n";
        fs::write(&file, with_issuer).unwrap();
        let error = loaded(&file).unwrap_err().to_string();
        assert!(
            error.contains("`a`") && error.contains("`login.example:8443`") && !error.contains("secret"),
            "{error}"
        );
        fs::write(&file, project("a")).unwrap();
        let guard = loaded(&file).unwrap();
        fs::write(&file, with_issuer).unwrap();
        assert!(matches!(guard.0.look(), Looked::Kept(GuardError::Unlisted(_))));
        assert!(read(&file).unwrap().iter().all(|project| project.jwks.is_some()), "who only looks may");
    }

    #[test]
    fn a_directory_is_read_as_secrets_are_mounted() {
        let directory = tempdir().unwrap();
        let version = |name: &str, ids: &[&str]| {
            let folder = directory.path().join(name);
            fs::create_dir(&folder).unwrap();
            for id in ids {
                fs::write(folder.join(format!("{id}.toml")), project(id)).unwrap();
            }
        };
        let turn_to = |name: &str| {
            let aside = directory.path().join("..aside");
            symlink(name, &aside).unwrap();
            fs::rename(&aside, directory.path().join("..data")).unwrap();
        };
        version("..2026_1", &["a"]);
        turn_to("..2026_1");
        symlink("..data/a.toml", directory.path().join("a.toml")).unwrap();
        fs::write(directory.path().join("README"), "not a project").unwrap();
        fs::write(directory.path().join(".hidden.toml"), "nonsense").unwrap();
        let guard = loaded(directory.path()).unwrap();
        assert_eq!(ids(&guard), ["a"]);

        version("..2026_2", &["a", "b"]);
        symlink("..data/b.toml", directory.path().join("b.toml")).unwrap();
        assert!(matches!(guard.0.look(), Looked::Kept(_)), "half of the change is none");
        turn_to("..2026_2");
        assert!(matches!(guard.0.look(), Looked::Replaced));
        assert_eq!(ids(&guard), ["a", "b"]);
    }

    #[test]
    fn what_is_not_there_or_empty_is_refused_with_its_place() {
        let directory = tempdir().unwrap();
        let error = |place: &Path| loaded(place).unwrap_err().to_string();
        assert!(error(directory.path()).starts_with("there is no project"));
        assert!(error(&directory.path().join("nowhere")).ends_with("nowhere cannot be read"));
        fs::write(directory.path().join("p.toml"), project("a b")).unwrap();
        assert!(error(directory.path()).contains("p.toml: project 1: `id`"));
        assert!(!format!("{:?}", Guard::fixed(Projects::new([]).unwrap(), Duration::ZERO)).contains("hunter2"));
    }
}

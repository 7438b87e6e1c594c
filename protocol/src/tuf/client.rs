//! The client's workflow (section 5), as decisions: what to fetch next, what to keep, what to refuse.
//!
//! An [`Updater`] begins with what was kept, and `now`. It says what it wants ([`Updater::poll`]) until
//! all four files are the newest ones; then it can search ([`Updater::find`]). What it says to keep has
//! been verified, and must be kept before the next step, or a rollback could go unseen. An error ends it;
//! what was kept until then stays good.
//!
//! Nothing that was kept is believed because it was kept: it is verified anew under the root that holds
//! now. So versions that somebody drove up with a key that root has since replaced are forgotten, which
//! is the way back from a fast-forward attack (5.3.11).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Refused;
use super::delegation::Ask;
use super::metadata::{
    Envelope, MetaFile, ROOT, RoleKeys, Root, SNAPSHOT, Said, Snapshot, TARGETS, TIMESTAMP, Target,
    Targets, Timestamp, max_bytes,
};
use crate::limits::{TUF_ROOTS_MAX, TUF_VISITS_MAX};

/// What the updater wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Fetch a file, and answer ([`Updater::handle`]).
    Fetch(Wanted),
    /// Keep a verified file in the place of what was kept of that role.
    Keep(Kept),
    /// Nothing: what was asked for is known.
    Done,
}

/// A file that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whose.
    pub role: String,
    /// Which version; none where the name has none.
    pub version: Option<u64>,
    /// More than this is not to be fetched.
    pub max_bytes: u64,
}

impl Wanted {
    /// Its name in a repository; safe as a file name and in a URL.
    pub fn file_name(&self) -> String {
        let role = quote(&self.role);
        self.version.map_or_else(|| format!("{role}.json"), |v| format!("{v}.{role}.json"))
    }
}

/// A role's name with everything but letters, digits and `_.-~` in percent signs.
pub fn quote(role: &str) -> String {
    let mut quoted = String::new();
    for byte in role.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) {
            quoted.push(char::from(byte));
        } else {
            quoted.push_str(&format!("%{byte:02X}"));
        }
    }
    quoted
}

/// A file to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Whose.
    pub role: String,
    /// Byte for byte.
    pub bytes: Vec<u8>,
}

/// What came of fetching a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Here it is.
    Found(Vec<u8>),
    /// The repository says that it has no such file.
    Absent,
    /// The repository did not say anything.
    Unreachable,
    /// The repository sent more than was wanted.
    Endless,
}

/// What is waited for.
#[derive(Debug)]
enum Phase {
    Root,
    Timestamp,
    Snapshot(MetaFile),
    Targets(MetaFile),
    Role(Ask, MetaFile),
    Done,
    Failed,
}

/// A search for a target.
#[derive(Debug, Default)]
struct Search {
    path: String,
    /// Whom to ask, the next one last.
    ahead: Vec<Ask>,
    visited: BTreeSet<String>,
}

/// Brings the four files up to date, and finds targets.
#[derive(Debug)]
pub struct Updater {
    now_s: i64,
    stored: BTreeMap<String, Vec<u8>>,
    keep: VecDeque<Kept>,
    phase: Phase,
    root: Root,
    roots: u32,
    timestamp: Option<Timestamp>,
    snapshot: Option<Snapshot>,
    targets: Option<Targets>,
    search: Search,
    found: Option<Target>,
}

impl Updater {
    /// Begins an update with the files that were kept, by role. Of root there must be one; it is believed
    /// because it was given, but must be one that is signed by itself.
    ///
    /// # Errors
    /// [`Refused`], where that root is none.
    pub fn begin(stored: BTreeMap<String, Vec<u8>>, now_s: i64) -> Result<Self, Refused> {
        let bytes = stored.get(ROOT).ok_or_else(|| Refused::Absent(ROOT.to_owned()))?;
        let root = trusted_root(bytes)?;
        Ok(Self {
            now_s,
            stored,
            keep: VecDeque::new(),
            phase: Phase::Root,
            root,
            roots: 0,
            timestamp: None,
            snapshot: None,
            targets: None,
            search: Search::default(),
            found: None,
        })
    }

    /// What is to be done now.
    pub fn poll(&mut self) -> Step {
        if let Some(kept) = self.keep.pop_front() {
            return Step::Keep(kept);
        }
        let consistent = self.root.consistent_snapshot;
        let wanted = |role: &str, version: Option<u64>, max_bytes: u64| {
            Step::Fetch(Wanted { role: role.to_owned(), version, max_bytes })
        };
        let named = |role: &str, file: &MetaFile| {
            wanted(role, consistent.then_some(file.version), file.max_bytes(role))
        };
        match &self.phase {
            Phase::Root => wanted(ROOT, Some(self.root.head.version + 1), max_bytes(ROOT)),
            Phase::Timestamp => wanted(TIMESTAMP, None, max_bytes(TIMESTAMP)),
            Phase::Snapshot(file) => named(SNAPSHOT, file),
            Phase::Targets(file) => named(TARGETS, file),
            Phase::Role(ask, file) => named(&ask.name, file),
            Phase::Done | Phase::Failed => Step::Done,
        }
    }

    /// Takes what came of the fetch that [`Updater::poll`] asked for.
    ///
    /// # Errors
    /// [`Refused`]. The update is over then.
    pub fn handle(&mut self, answer: Answer) -> Result<(), Refused> {
        let phase = std::mem::replace(&mut self.phase, Phase::Failed);
        let role = match &phase {
            Phase::Root => ROOT,
            Phase::Timestamp => TIMESTAMP,
            Phase::Snapshot(_) => SNAPSHOT,
            Phase::Targets(_) => TARGETS,
            Phase::Role(ask, _) => ask.name.as_str(),
            Phase::Done | Phase::Failed => return Ok(()),
        };
        let bytes = match answer {
            Answer::Found(bytes) => bytes,
            Answer::Absent if role == ROOT => return self.end_of_roots(),
            Answer::Absent => return Err(Refused::Absent(role.to_owned())),
            Answer::Unreachable => return Err(Refused::Unreachable(role.to_owned())),
            Answer::Endless => {
                let max_bytes = match &phase {
                    Phase::Snapshot(file) | Phase::Targets(file) | Phase::Role(_, file) => {
                        file.max_bytes(role)
                    }
                    _ => max_bytes(role),
                };
                return Err(Refused::TooLarge { what: role.to_owned(), max_bytes });
            }
        };
        match phase {
            Phase::Root => self.take_root(bytes),
            Phase::Timestamp => self.take_timestamp(bytes),
            Phase::Snapshot(file) => self.take_snapshot(&file, bytes),
            Phase::Targets(file) => self.take_targets(&file, bytes),
            Phase::Role(ask, file) => self.take_role(&ask, &file, bytes),
            Phase::Done | Phase::Failed => Ok(()),
        }
    }

    /// Whether all four files are up to date.
    pub fn is_current(&self) -> bool {
        self.targets.is_some() && !matches!(self.phase, Phase::Failed)
    }

    /// The root that holds.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The top-level targets, once they are up to date.
    pub fn targets(&self) -> Option<&Targets> {
        self.targets.as_ref()
    }

    /// Begins a search for a target, once all is up to date; it is over when [`Updater::poll`] is done.
    ///
    /// # Errors
    /// [`Refused::TooManyDelegations`]; [`Refused::NotInSnapshot`].
    pub fn find(&mut self, path: &str) -> Result<(), Refused> {
        self.found = None;
        self.search = Search { path: path.to_owned(), ..Search::default() };
        if !self.is_current() {
            return Err(Refused::Absent(TARGETS.to_owned()));
        }
        let Some(targets) = self.targets.take() else { return Ok(()) };
        self.look_into(&targets);
        self.targets = Some(targets);
        self.go_on()
    }

    /// What the last search found, if a role names it.
    pub fn found(&self) -> Option<&Target> {
        self.found.as_ref()
    }

    /// The next version of root, signed by the threshold of the present one and by its own (5.3).
    fn take_root(&mut self, bytes: Vec<u8>) -> Result<(), Refused> {
        let envelope = Envelope::parse(ROOT, &bytes)?;
        let root: Root = envelope.verify(ROOT, &self.root.keys_of(ROOT))?;
        let root: Root = envelope.verify(ROOT, &root.keys_of(ROOT))?;
        check_version(ROOT, self.root.head.version + 1, root.head.version)?;
        self.root = root;
        self.roots += 1;
        self.keep(ROOT, bytes);
        if self.roots >= TUF_ROOTS_MAX {
            return self.end_of_roots();
        }
        self.phase = Phase::Root;
        Ok(())
    }

    fn end_of_roots(&mut self) -> Result<(), Refused> {
        self.root.head.check_expiry(ROOT, self.now_s)?;
        self.timestamp = self.kept(TIMESTAMP, &self.root.keys_of(TIMESTAMP));
        self.snapshot = self.kept(SNAPSHOT, &self.root.keys_of(SNAPSHOT));
        self.phase = Phase::Timestamp;
        Ok(())
    }

    /// The newest timestamp (5.4).
    fn take_timestamp(&mut self, bytes: Vec<u8>) -> Result<(), Refused> {
        let envelope = Envelope::parse(TIMESTAMP, &bytes)?;
        let offered: Timestamp = envelope.verify(TIMESTAMP, &self.root.keys_of(TIMESTAMP))?;
        let newer = match &self.timestamp {
            None => true,
            Some(trusted) => {
                check_newer(TIMESTAMP, trusted.head.version, offered.head.version)?;
                let is_newer = offered.head.version > trusted.head.version;
                if is_newer {
                    let (old, new) = (trusted.snapshot(), offered.snapshot());
                    check_newer(SNAPSHOT, old.version, new.version)?;
                }
                is_newer
            }
        };
        // Of the same version the one that was seen first holds, whatever the other says.
        let timestamp = match self.timestamp.take() {
            Some(trusted) if !newer => trusted,
            _ => offered,
        };
        timestamp.head.check_expiry(TIMESTAMP, self.now_s)?;
        if newer {
            self.keep(TIMESTAMP, bytes);
        }
        let file = timestamp.snapshot().clone();
        self.timestamp = Some(timestamp);
        self.want_snapshot(file)
    }

    fn want_snapshot(&mut self, file: MetaFile) -> Result<(), Refused> {
        let is_here = self.snapshot.as_ref().is_some_and(|kept| kept.head.version == file.version)
            && self.is_kept(SNAPSHOT, &file);
        if !is_here {
            self.phase = Phase::Snapshot(file);
            return Ok(());
        }
        if let Some(snapshot) = &self.snapshot {
            snapshot.head.check_expiry(SNAPSHOT, self.now_s)?;
        }
        self.want_targets()
    }

    /// The snapshot that the timestamp names (5.5).
    fn take_snapshot(&mut self, file: &MetaFile, bytes: Vec<u8>) -> Result<(), Refused> {
        file.check(SNAPSHOT, &bytes)?;
        let envelope = Envelope::parse(SNAPSHOT, &bytes)?;
        let snapshot: Snapshot = envelope.verify(SNAPSHOT, &self.root.keys_of(SNAPSHOT))?;
        check_version(SNAPSHOT, file.version, snapshot.head.version)?;
        for (name, seen) in self.snapshot.iter().flat_map(|trusted| &trusted.meta) {
            let role = name.strip_suffix(".json").unwrap_or(name);
            let now = snapshot.meta.get(name);
            let now = now.ok_or_else(|| Refused::RoleRemoved(role.to_owned()))?;
            check_newer(role, seen.version, now.version)?;
        }
        snapshot.head.check_expiry(SNAPSHOT, self.now_s)?;
        self.snapshot = Some(snapshot);
        self.keep(SNAPSHOT, bytes);
        self.want_targets()
    }

    fn want_targets(&mut self) -> Result<(), Refused> {
        let file = self.listed(TARGETS)?;
        let keys = self.root.keys_of(TARGETS);
        match self.kept_as(TARGETS, &keys, &file)? {
            Some(targets) => {
                self.targets = Some(targets);
                self.phase = Phase::Done;
            }
            None => self.phase = Phase::Targets(file),
        }
        Ok(())
    }

    /// The targets that the snapshot names (5.6).
    fn take_targets(&mut self, file: &MetaFile, bytes: Vec<u8>) -> Result<(), Refused> {
        let keys = self.root.keys_of(TARGETS);
        self.targets = Some(self.verify_targets(TARGETS, &keys, file, &bytes)?);
        self.keep(TARGETS, bytes);
        self.phase = Phase::Done;
        Ok(())
    }

    fn take_role(&mut self, ask: &Ask, file: &MetaFile, bytes: Vec<u8>) -> Result<(), Refused> {
        let targets = self.verify_targets(&ask.name, &ask.keys, file, &bytes)?;
        self.keep(&ask.name, bytes);
        self.look_into(&targets);
        self.go_on()
    }

    fn verify_targets(
        &self,
        role: &str,
        keys: &RoleKeys,
        file: &MetaFile,
        bytes: &[u8],
    ) -> Result<Targets, Refused> {
        file.check(role, bytes)?;
        let targets: Targets = Envelope::parse(role, bytes)?.verify(role, keys)?;
        check_version(role, file.version, targets.head.version)?;
        targets.head.check_expiry(role, self.now_s)?;
        Ok(targets)
    }

    /// Whether a role's targets name what is searched; else whom they delegate that to is asked next, in
    /// their order, before anybody who was to be asked (5.6.7).
    fn look_into(&mut self, targets: &Targets) {
        if let Some(target) = targets.targets.get(&self.search.path) {
            self.found = Some(target.clone());
            self.search.ahead.clear();
            return;
        }
        let Some(delegations) = &targets.delegations else { return };
        let mut next = Vec::new();
        for ask in delegations.roles_for(&self.search.path) {
            let is_last = ask.terminating;
            next.push(ask);
            if is_last {
                self.search.ahead.clear();
                break;
            }
        }
        self.search.ahead.extend(next.into_iter().rev());
    }

    /// Goes on with the search as far as what was kept leads.
    fn go_on(&mut self) -> Result<(), Refused> {
        while let Some(ask) = self.search.ahead.pop() {
            if !self.search.visited.insert(ask.name.clone()) {
                continue;
            }
            if self.search.visited.len() > TUF_VISITS_MAX {
                self.phase = Phase::Failed;
                return Err(Refused::TooManyDelegations(self.search.path.clone()));
            }
            let file = self.listed(&ask.name)?;
            match self.kept_as(&ask.name, &ask.keys, &file)? {
                Some(targets) => self.look_into(&targets),
                None => {
                    self.phase = Phase::Role(ask, file);
                    return Ok(());
                }
            }
        }
        self.phase = Phase::Done;
        Ok(())
    }

    fn listed(&self, role: &str) -> Result<MetaFile, Refused> {
        let file = self.snapshot.as_ref().and_then(|snapshot| snapshot.file(role));
        file.cloned().ok_or_else(|| Refused::NotInSnapshot(role.to_owned()))
    }

    /// What was kept of a role, if these keys have signed it.
    fn kept<S: Said>(&self, role: &str, keys: &RoleKeys) -> Option<S> {
        let bytes = self.stored.get(role)?;
        Envelope::parse(role, bytes).ok()?.verify(role, keys).ok()
    }

    /// The kept targets of a role, if they are those that the snapshot names and these keys have signed.
    fn kept_as(
        &self,
        role: &str,
        keys: &RoleKeys,
        file: &MetaFile,
    ) -> Result<Option<Targets>, Refused> {
        let kept: Option<Targets> = self.kept(role, keys);
        let kept =
            kept.filter(|kept| kept.head.version == file.version && self.is_kept(role, file));
        if let Some(kept) = &kept {
            kept.head.check_expiry(role, self.now_s)?;
        }
        Ok(kept)
    }

    fn is_kept(&self, role: &str, file: &MetaFile) -> bool {
        self.stored.get(role).is_some_and(|bytes| file.check(role, bytes).is_ok())
    }

    fn keep(&mut self, role: &str, bytes: Vec<u8>) {
        self.stored.insert(role.to_owned(), bytes.clone());
        self.keep.push_back(Kept { role: role.to_owned(), bytes });
    }
}

/// A root that is trusted because of where it came from: signed by the threshold of its own keys.
///
/// # Errors
/// [`Refused`].
pub fn trusted_root(bytes: &[u8]) -> Result<Root, Refused> {
    let envelope = Envelope::parse(ROOT, bytes)?;
    let root: Root = envelope.read(ROOT)?;
    envelope.verify(ROOT, &root.keys_of(ROOT))
}

fn check_version(role: &str, expected: u64, actual: u64) -> Result<(), Refused> {
    let wrong = || Refused::WrongVersion { role: role.to_owned(), expected, actual };
    (expected == actual).then_some(()).ok_or_else(wrong)
}

fn check_newer(role: &str, trusted: u64, offered: u64) -> Result<(), Refused> {
    let older = || Refused::Rollback { role: role.to_owned(), trusted, offered };
    (offered >= trusted).then_some(()).ok_or_else(older)
}

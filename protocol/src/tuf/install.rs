//! What an installation needs, after Uptane: that *targets* (keys offline) name the bundle as good, and
//! that the *director* (a key online) names it for this very device. Neither of them alone can install
//! anything. Whose word the director's is, the targets say: they delegate `director/…` to its key.
//!
//! The director's list is one file of targets for each device. It is in no snapshot: a device gets it
//! over its own connection, keeps the newest version, and refuses older ones, as Uptane's devices with
//! partial verification do.
//!
//! [`Admission`] is all of that for one bundle: an update of the metadata, a search, and both words. [`Endorsement`] is the
//! first word alone, for a file that is the same on every device.

use std::collections::BTreeMap;

use super::Refused;
use super::client::{Answer, Step, Updater};
use super::metadata::{Envelope, TARGETS, Target, Targets};
use crate::id::{DeviceId, ModelName, Variant, Version};

/// The role of the director in the targets' delegations.
pub const DIRECTOR: &str = "director";
/// What is delegated to it.
pub const DIRECTOR_PATHS: &str = "director/*/*/*/*";

/// The path of a bundle in the repository: its target is the manifest, byte for byte, which names
/// every file of the bundle by hash.
pub fn target_path(model: &ModelName, version: Version, variant: Variant) -> String {
    format!("{model}/{version}/{variant}.json")
}

/// The path of the same for one device, in the director's list.
pub fn directed_path(device: &DeviceId, path: &str) -> String {
    format!("director/{device}/{path}")
}

/// What is to be installed, and what was said for it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// This device.
    pub device: &'a DeviceId,
    /// The bundle's path in the repository.
    pub path: &'a str,
    /// Its manifest, byte for byte.
    pub manifest: &'a [u8],
    /// The director's list.
    pub directed: &'a [u8],
    /// The version of the list that was seen last.
    pub seen: u64,
}

/// An update of the metadata, and then a search for one path in the targets.
#[derive(Debug)]
struct Search<'a> {
    updater: Updater,
    path: &'a str,
    searches: bool,
}

impl<'a> Search<'a> {
    fn begin(
        stored: BTreeMap<String, Vec<u8>>,
        path: &'a str,
        now_s: i64,
    ) -> Result<Self, Refused> {
        Ok(Self { updater: Updater::begin(stored, now_s)?, path, searches: false })
    }

    fn poll(&mut self) -> Result<Step, Refused> {
        match self.updater.poll() {
            Step::Done if !self.searches => {
                self.searches = true;
                self.updater.find(self.path)?;
                Ok(self.updater.poll())
            }
            step => Ok(step),
        }
    }

    /// The targets, and what they say of the path.
    fn found(&self) -> Result<(&Targets, &Target), Refused> {
        let targets = self.updater.targets().filter(|_| self.updater.is_current());
        let targets = targets.ok_or_else(|| Refused::Absent(TARGETS.to_owned()))?;
        let found = self.updater.found().ok_or_else(|| Refused::NotNamed(self.path.to_owned()))?;
        Ok((targets, found))
    }
}

/// Whether targets name a file that is for every device, and no bundle: the director has no say in it.
#[derive(Debug)]
pub struct Endorsement<'a>(Search<'a>);

impl<'a> Endorsement<'a> {
    /// Begins with the metadata that were kept, by role.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn begin(
        stored: BTreeMap<String, Vec<u8>>,
        path: &'a str,
        now_s: i64,
    ) -> Result<Self, Refused> {
        Ok(Self(Search::begin(stored, path, now_s)?))
    }

    /// What is to be done now.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn poll(&mut self) -> Result<Step, Refused> {
        self.0.poll()
    }

    /// Takes what came of a fetch.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn handle(&mut self, answer: Answer) -> Result<(), Refused> {
        self.0.updater.handle(answer)
    }

    /// The verdict, once nothing is left to do.
    ///
    /// # Errors
    /// [`Refused`]: these bytes are not what targets name.
    pub fn finish(self, bytes: &[u8]) -> Result<(), Refused> {
        let (_, good) = self.0.found()?;
        good.check(self.0.path, bytes)
    }
}

/// Whether a bundle may be installed.
#[derive(Debug)]
pub struct Admission<'a> {
    search: Search<'a>,
    asked: Asked<'a>,
    now_s: i64,
}

impl<'a> Admission<'a> {
    /// Begins with the metadata that were kept, by role.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn begin(
        stored: BTreeMap<String, Vec<u8>>,
        asked: Asked<'a>,
        now_s: i64,
    ) -> Result<Self, Refused> {
        Ok(Self { search: Search::begin(stored, asked.path, now_s)?, asked, now_s })
    }

    /// What is to be done now.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn poll(&mut self) -> Result<Step, Refused> {
        self.search.poll()
    }

    /// Takes what came of a fetch.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn handle(&mut self, answer: Answer) -> Result<(), Refused> {
        self.search.updater.handle(answer)
    }

    /// The verdict, once nothing is left to do: the version of the director's list, from now on the
    /// oldest that is believed.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn finish(self) -> Result<u64, Refused> {
        let Asked { device, path, manifest, directed, seen } = self.asked;
        let (targets, good) = self.search.found()?;
        let directed = Directed::verify(directed, targets, seen, self.now_s)?;
        directed.admit(device, path, good, manifest)?;
        Ok(directed.version())
    }
}

/// What the director says that a device should run.
#[derive(Debug, Clone, PartialEq)]
struct Directed(Targets);

impl Directed {
    /// The list, if the director that these targets name has signed it, if it is not out of date, and if
    /// it is no older than the one that was seen last.
    fn verify(bytes: &[u8], targets: &Targets, seen: u64, now_s: i64) -> Result<Self, Refused> {
        let keys =
            targets.delegations.as_ref().and_then(|delegations| delegations.keys_of(DIRECTOR));
        let keys = keys.ok_or_else(|| Refused::NotNamed(DIRECTOR.to_owned()))?;
        let list: Targets = Envelope::parse(DIRECTOR, bytes)?.verify(DIRECTOR, &keys)?;
        if list.head.version < seen {
            let (role, offered) = (DIRECTOR.to_owned(), list.head.version);
            return Err(Refused::Rollback { role, trusted: seen, offered });
        }
        list.head.check_expiry(DIRECTOR, now_s)?;
        Ok(Self(list))
    }

    /// Its version.
    fn version(&self) -> u64 {
        self.0.head.version
    }

    /// Refuses a manifest that is not the file which both name: targets as `good`, and the director for
    /// this device.
    fn admit(
        &self,
        device: &DeviceId,
        path: &str,
        good: &Target,
        manifest: &[u8],
    ) -> Result<(), Refused> {
        good.check(path, manifest)?;
        let directed = directed_path(device, path);
        let Some(own) = self.0.targets.get(&directed) else {
            return Err(Refused::NotDirected { path: path.to_owned(), device: device.to_string() });
        };
        own.check(&directed, manifest).map_err(|_| Refused::Disagreement(path.to_owned()))
    }
}

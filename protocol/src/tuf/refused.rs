//! Why a repository is not believed: what is wrong, by the name of the attack that it may be.

/// Why metadata or a target are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not metadata.
    #[error("{role}: not metadata: {why}")]
    Malformed {
        /// Whose.
        role: String,
        /// What is wrong.
        why: String,
    },
    /// More bytes than there may be: endless data.
    #[error("{what} has more than {max_bytes} bytes")]
    TooLarge {
        /// A role's file, or a target.
        what: String,
        /// What was announced, or the limit.
        max_bytes: u64,
    },
    /// Another length than was signed.
    #[error("{what} has {actual_bytes} bytes, and {signed_bytes} were signed")]
    WrongLength {
        /// A role's file, or a target.
        what: String,
        /// What was signed.
        signed_bytes: u64,
        /// What came.
        actual_bytes: u64,
    },
    /// Other bytes than were signed.
    #[error("{0} has another hash than was signed")]
    WrongHash(String),
    /// No hash of a kind that can be computed here.
    #[error("{0} is named by no SHA-256 and no SHA-512")]
    NoHash(String),
    /// Keys below the threshold, or none that counts.
    #[error("{role} is signed by {valid} of the keys that count, and {threshold} are needed")]
    Unsigned {
        /// Whose.
        role: String,
        /// Valid signatures by different keys of the role.
        valid: usize,
        /// How many there must be.
        threshold: u64,
    },
    /// Another version than the one that was asked for: metadata that do not belong together.
    #[error("{role} is version {actual}, and {expected} was asked for")]
    WrongVersion {
        /// Whose.
        role: String,
        /// As signed elsewhere.
        expected: u64,
        /// What came.
        actual: u64,
    },
    /// An older version than was seen before.
    #[error("{role} {offered} is older than {trusted}, which was seen before: a rollback")]
    Rollback {
        /// Whose.
        role: String,
        /// The version that was seen before.
        trusted: u64,
        /// The version that came.
        offered: u64,
    },
    /// A role that was there before is not listed any more.
    #[error("the snapshot does not list {0} any more")]
    RoleRemoved(String),
    /// A role that is delegated to, and in no snapshot.
    #[error("the snapshot does not list {0}")]
    NotInSnapshot(String),
    /// Out of date: the repository, or who stands between, is stuck or freezes it.
    #[error("{role} has expired at {expired}")]
    Expired {
        /// Whose.
        role: String,
        /// Until when it was good.
        expired: String,
    },
    /// Delegations beyond what is followed.
    #[error("{0} is delegated over too many roles")]
    TooManyDelegations(String),
    /// A file that must be there is not.
    #[error("the repository has no {0}")]
    Absent(String),
    /// Nobody could be asked. Nothing is known.
    #[error("the repository cannot be reached for {0}")]
    Unreachable(String),
    /// No role names it, so it is not good.
    #[error("no role of the repository names {0}")]
    NotNamed(String),
    /// Named for another device, or not at all, by the director.
    #[error("the director does not name {path} for {device}")]
    NotDirected {
        /// The target.
        path: String,
        /// This device.
        device: String,
    },
    /// Director and targets do not mean the same file.
    #[error("director and targets name different files as {0}")]
    Disagreement(String),
}

impl Refused {
    /// Whether asking again can help although nobody mends anything.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    pub(super) fn malformed(role: &str, why: impl std::fmt::Display) -> Self {
        Self::Malformed { role: role.to_owned(), why: why.to_string() }
    }
}

//! Which execution providers were being tried with a bundle when the agent ended. A driver that takes
//! its process down would do it again at every start; after a few times it is passed over.

use super::{State, StateError};
use models::providers::{Provider, Reason};
use protocol::id::ContentHash;
use rusqlite::params;

/// A power cut in the middle of an attempt is forgiven so often; a driver's crash costs so many starts.
const ENDS_MAX: u32 = 2;

/// Beside the schema's own, as the other tables of what was found out.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS attempts (
    bundle TEXT NOT NULL,
    conditions TEXT NOT NULL,
    provider TEXT NOT NULL,
    begun INTEGER NOT NULL,
    PRIMARY KEY (bundle, conditions, provider)
) STRICT;
";

impl State {
    /// A provider is about to be tried: durable before it is, so that an end of the process shows.
    pub(crate) fn begin_attempt(
        &self,
        bundle: ContentHash,
        conditions: &str,
        provider: Provider,
    ) -> Result<Result<(), Reason>, StateError> {
        let begun: u32 = self.connection().query_row(
            "INSERT INTO attempts (bundle, conditions, provider, begun) VALUES (?1, ?2, ?3, 1)
             ON CONFLICT DO UPDATE SET begun = min(begun + 1, ?4) RETURNING begun",
            params![bundle.to_string(), conditions, provider.to_string(), ENDS_MAX + 1],
            |row| row.get(0),
        )?;
        Ok(match begun {
            1..=ENDS_MAX => Ok(()),
            _ => Err(Reason::EndsTheProgram { times: ENDS_MAX }),
        })
    }

    /// The process outlived what it tried. A provider that is passed over stays so.
    pub(crate) fn end_attempts(&self, bundle: ContentHash) -> Result<(), StateError> {
        self.connection().execute(
            "DELETE FROM attempts WHERE bundle = ?1 AND begun <= ?2",
            params![bundle.to_string(), ENDS_MAX],
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_the_agent_twice_is_passed_over_until_something_changes() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = ContentHash::of(b"bundle");
        let begin = |conditions: &str, provider| {
            State::open(folder.path()).unwrap().begin_attempt(bundle, conditions, provider).unwrap()
        };
        assert_eq!(begin("here", Provider::Cuda), Ok(()));
        State::open(folder.path()).unwrap().end_attempts(bundle).unwrap();
        for _ in 0..ENDS_MAX {
            assert_eq!(begin("here", Provider::Cuda), Ok(()), "what ended well does not count");
        }
        for _ in 0..3 {
            let passed_over = begin("here", Provider::Cuda);
            assert_eq!(passed_over, Err(Reason::EndsTheProgram { times: ENDS_MAX }));
            State::open(folder.path()).unwrap().end_attempts(bundle).unwrap();
        }
        assert_eq!(begin("here", Provider::Qnn), Ok(()), "another provider");
        assert_eq!(begin("another library", Provider::Cuda), Ok(()));
    }
}

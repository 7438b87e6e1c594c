//! For whom is sealed. The cloud brings an operator's statement with the desired state; it is believed by the operator's
//! signature, never in an older version than one that was seen, and written down. Without one, nothing but counters
//! is kept. On a device that has a repository, its targets must name the statement too.

use super::recorder::Recorder;
use super::spool::Spool;
use crate::counters::Counters;
use crate::repository::Repository;
use crate::state::State;
use ::link::durable::aside;
use protocol::analytics::SignedStatement;
use protocol::manifest::SignerKey;
use protocol::problem::chain;
use protocol::wire::DesiredState;
use std::sync::Arc;
use std::time::Duration;
use telemetry::key::PublicKey;
use tokio::sync::watch;

/// How often a statement that was not believed is judged anew.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// Holds the key.
pub(super) struct Holder {
    pub(super) spool: Arc<Spool>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) state: Arc<State>,
    pub(super) repository: Arc<Repository>,
    pub(super) trusted: Vec<SignerKey>,
    pub(super) counters: Arc<Counters>,
}

impl Holder {
    /// The key that was believed before the restart. Blocks.
    pub(super) fn restore(&self) {
        match aside(|| self.state.analytics_key()) {
            Ok(Some((statement, serial))) => {
                // Of another fleet, where this device was enrolled before: its numbers bind nobody here.
                if let Err(why) = self.take(&statement, serial) {
                    self.counters.telemetry_key_refused(&why);
                    if let Err(error) = aside(|| self.state.forget_analytics_key()) {
                        self.counters.telemetry_not_written(&error);
                    }
                }
            }
            Ok(None) => {}
            Err(error) => self.counters.telemetry_not_written(&error),
        }
    }

    /// Follows the desired state for ever.
    pub(super) async fn run(self, mut desired: watch::Receiver<Option<DesiredState>>) {
        let mut heard = bytes::Bytes::new();
        loop {
            // Again after a while, also where nothing changed: the repository may not have been within reach.
            let changed = tokio::time::timeout(TRY_AGAIN, desired.changed()).await;
            if changed.is_ok_and(|changed| changed.is_err()) {
                return; // the agent is shutting down
            }
            let statement =
                desired.borrow_and_update().as_ref().map(|state| state.analytics_key.clone());
            let statement = statement.unwrap_or_default();
            // Where the cloud names none, what was believed stays: only an operator takes it back.
            if statement.is_empty() || statement == heard {
                continue;
            }
            match self.hear(&statement).await {
                Ok(()) => heard = statement,
                Err(why) => self.counters.telemetry_key_refused(&why),
            }
        }
    }

    async fn hear(&self, statement: &[u8]) -> Result<(), String> {
        let kept = aside(|| self.state.analytics_key()).map_err(|error| chain(&error))?;
        let (known, seen) = kept.unwrap_or_default();
        if known == statement {
            return Ok(());
        }
        let endorsed = self.repository.endorse(protocol::analytics::TARGET, statement).await;
        endorsed.map_err(|error| chain(&error))?;
        let serial = self.take(statement, seen)?;
        aside(|| self.state.keep_analytics_key(statement, serial)).map_err(|error| chain(&error))
    }

    /// Seals for the key from now on, if the statement is an operator's.
    fn take(&self, statement: &[u8], seen: u64) -> Result<u64, String> {
        let signed = SignedStatement::from_json(statement).map_err(|error| chain(&error))?;
        let said = signed.verify(&self.trusted, seen).map_err(|error| chain(&error))?;
        let key = PublicKey::from_hex(&said.public_key).map_err(|error| error.to_string())?;
        aside(|| self.spool.set_key(Some(key)));
        self.recorder.set_has_key(true);
        self.counters.telemetry_key_believed(said.serial);
        Ok(said.serial)
    }
}

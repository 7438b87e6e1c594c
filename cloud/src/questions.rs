//! Questions to devices, carried out: what `fleet::questions` keeps is told to devices with their desired state, and what
//! these answer is brought to it. Who asked what of which device, and when that answered, is in the audit log.

use fleet::questions::{AskError, Asked, Questions, Standing};
use protocol::id::{DeviceId, QuestionId};
use protocol::question::What;
use protocol::wire;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::state::{Cloud, now_s, unix_s};
use crate::store::audit::By;
use crate::store::{Database, Store, StoreError};

/// All questions.
#[derive(Debug, Default)]
pub struct Open(Mutex<Questions>);

/// Why a question is not asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuestionError {
    /// No such device.
    #[error("there is no device {0}")]
    NoDevice(DeviceId),
    /// Too much is asked.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, Questions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a device is to answer now.
    pub(crate) fn waiting_for(&self, device: &DeviceId) -> Vec<wire::Question> {
        self.lock().waiting_for(device, unix_s())
    }

    /// A question and how it stands.
    pub(crate) fn get(&self, id: &QuestionId) -> Option<(Asked, Standing)> {
        let mut all = self.lock();
        all.get(id, unix_s()).map(|(asked, standing)| (asked.clone(), standing.clone()))
    }

    /// Asks once it is written down who does: what cannot be, is not asked. (An entry without a question remains where
    /// somebody else took the last place meanwhile.)
    async fn ask(
        &self,
        db: &Database,
        (id, asked): (QuestionId, Asked),
        by: By,
    ) -> Result<(), QuestionError> {
        self.lock().may_ask(&asked)?;
        let Asked { device, what, wait_s, .. } = &asked;
        let (action, subject) = (action(*what), device.to_string());
        let detail = format!("{id}: {what}, within {wait_s} s");
        db.call(move |store| store.note_detail(&by, action, &subject, &detail)).await?;
        Ok(self.lock().ask(id, asked)?)
    }

    /// This device is gone.
    pub(crate) fn forget(&self, device: &DeviceId) {
        self.lock().forget(device);
    }
}

/// Asks a device, which is told as soon as it is there.
///
/// # Errors
/// [`QuestionError`]; nothing is asked then.
pub(crate) async fn ask(
    cloud: &Cloud,
    (device, what, wait_s): (DeviceId, What, u64),
    by: By,
) -> Result<QuestionId, QuestionError> {
    let known = device.clone();
    if cloud.db.call(move |store| store.known_device(&known)).await?.is_none() {
        return Err(QuestionError::NoDevice(device));
    }
    let id: QuestionId = format!("q-{}", hex::encode(link::entropy::<8>()))
        .parse()
        .map_err(|_| StoreError::Closed)?; // such a text always is an id
    let asked = Asked { device: device.clone(), what, at_s: unix_s(), wait_s };
    cloud.questions.ask(&cloud.db, (id.clone(), asked), by).await?;
    cloud.rollouts.heard.tell([&device].into_iter());
    Ok(id)
}

fn action(what: What) -> &'static str {
    match what {
        What::Check => "device.check",
        What::Logs { .. } => "device.logs",
    }
}

/// A device answers.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn take(
    cloud: &Cloud,
    device: &DeviceId,
    answer: wire::DeviceAnswer,
) -> Result<(), StoreError> {
    let id = answer.id.clone();
    let detail = {
        let mut all = cloud.questions.lock();
        let Some((_, standing)) = all.handle_answer(device, answer, unix_s()) else {
            return Ok(());
        };
        match standing {
            Standing::Refused { word, .. } => format!("{id}: refused, {word}"),
            Standing::Answered { text, .. } => format!("{id}: {} bytes", text.len()),
            Standing::Waiting | Standing::Late => id,
        }
    };
    let by = By { actor: format!("device {device}"), now_s: now_s() };
    let subject = device.to_string();
    let noted = move |store: &Store| store.note_detail(&by, "device.answer", &subject, &detail);
    cloud.db.call(noted).await?;
    cloud.rollouts.heard.tell([device].into_iter());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_written_down_is_not_asked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cloud.db");
        let db = Database::new(Store::open(&file).unwrap());
        let (all, device) = (Open::default(), "d-1".parse::<DeviceId>().unwrap());
        let ask = async |id: &str| {
            let asked =
                Asked { device: device.clone(), what: What::Check, at_s: unix_s(), wait_s: 60 };
            let by = By { actor: "ada".into(), now_s: now_s() };
            all.ask(&db, (id.parse().unwrap(), asked), by).await
        };
        ask("q-1").await.unwrap();
        assert_eq!(db.store().audit(9).unwrap()[0].action, "device.check");
        assert_eq!(all.waiting_for(&device).len(), 1);

        let beside = rusqlite::Connection::open(&file).unwrap();
        let refuse =
            "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(FAIL, 'full'); END";
        beside.execute_batch(refuse).unwrap();
        assert!(matches!(ask("q-2").await, Err(QuestionError::Store(_))));
        assert_eq!(all.waiting_for(&device).len(), 1, "nobody was asked");
    }
}

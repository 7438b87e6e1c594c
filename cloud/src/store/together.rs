//! Small changes of many devices that come together are one transaction: when a fleet connects, a sync of the disk for each
//! device would cost more than all the rest. Each is durable, or failed, when its caller hears of it, as if it were alone.

use link::counter::Counter;
use rusqlite::Transaction;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

use super::{Store, StoreError};

/// Changes of one transaction.
const TOGETHER_MAX: usize = 512;

/// One change: a statement, which SQLite does whole or not at all.
pub(super) type Change = Box<dyn FnOnce(&Transaction<'_>) -> rusqlite::Result<()> + Send>;

struct Waiting {
    change: Change,
    told: oneshot::Sender<Result<(), StoreError>>,
}

/// The changes that wait.
#[derive(Default)]
pub(super) struct Together {
    queue: Mutex<Queue>,
    transactions: Counter,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// Whether somebody writes: until nothing waits.
    is_written: bool,
}

impl Together {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a change into the queue. What becomes of it, and whether the caller has to see that it is written.
    pub(super) fn add(&self, change: Change) -> (oneshot::Receiver<Result<(), StoreError>>, bool) {
        let (told, result) = oneshot::channel();
        let mut queue = self.queue();
        queue.waiting.push(Waiting { change, told });
        (result, !std::mem::replace(&mut queue.is_written, true))
    }

    /// Writes until nothing waits.
    pub(super) fn write(&self, store: &Store) {
        let writing = Writing(self);
        while let Some(batch) = writing.next() {
            self.transactions.add(1);
            commit(store, batch);
        }
    }
}

/// Whoever comes next writes by itself, also where this one panics.
struct Writing<'a>(&'a Together);

impl Writing<'_> {
    /// What waits; where that is nothing, whoever comes next has to see to it.
    fn next(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.0.queue();
        let count = queue.waiting.len().min(TOGETHER_MAX);
        queue.is_written = count > 0;
        (count > 0).then(|| queue.waiting.drain(..count).collect())
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.queue().is_written = false;
        }
    }
}

fn commit(store: &Store, batch: Vec<Waiting>) {
    let (changes, told): (Vec<_>, Vec<_>) = batch.into_iter().map(|w| (w.change, w.told)).unzip();
    let committed = store.change(|transaction| {
        let done = changes.into_iter().map(|change| change(transaction));
        Ok::<_, StoreError>(done.collect::<Vec<_>>())
    });
    let failed = committed.as_ref().err().map(|error| protocol::problem::chain(error));
    let mut results = committed.unwrap_or_default().into_iter();
    for told in told {
        let result = match (&failed, results.next()) {
            (None, Some(result)) => result.map_err(StoreError::from),
            (why, _) => Err(StoreError::Together(why.clone().unwrap_or_default())),
        };
        let _ = told.send(result); // whoever asked may be gone
    }
}

#[cfg(test)]
mod tests {
    use super::super::Database;
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn many_are_written_in_few_transactions_and_one_that_fails_fails_alone() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::new(Store::open(&folder.path().join("cloud.db")).unwrap());
        let sql = "CREATE TABLE counted (n INTEGER NOT NULL, CHECK (n <> 7))";
        database.store().change::<_, StoreError>(|t| Ok(t.execute(sql, [])?)).unwrap();
        let insert = |n: u32| {
            let sql = "INSERT INTO counted VALUES (?)";
            database.together(move |t| t.execute(sql, [n]).map(drop))
        };
        let results = futures_util::future::join_all((0..1000).map(insert)).await;
        let failed: Vec<_> = (0..1000).filter(|n| results[*n].is_err()).collect();
        assert_eq!(failed, [7]);
        let sql = "SELECT count(*) FROM counted";
        let rows = |c: &rusqlite::Connection| c.query_row(sql, [], |row| row.get::<_, i64>(0));
        assert_eq!(database.store().read(rows).unwrap(), 999);
        let transactions = database.0.together.transactions.get();
        assert!(transactions < 100, "{transactions} transactions for 1,000 changes");
    }
}

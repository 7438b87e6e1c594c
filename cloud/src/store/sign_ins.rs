//! Keys of people who signed in: they end by themselves, and are forgotten a while after that.

use fleet::access::{KeyRecord, Person};
use fleet::sign_in::{ALL_SIGN_INS_MAX, SIGN_INS_MAX};
use rusqlite::{Transaction, params};

use super::audit::{By, append};
use super::keys::insert;
use super::{Store, StoreError};

/// How long a key is listed that has ended, in seconds.
const LISTED_S: i64 = 30 * 24 * 60 * 60;

/// What became of a sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedIn {
    /// The key can be used; these of the same person cannot any more.
    Now(Vec<String>),
    /// There are too many.
    TooMany,
}

impl Store {
    /// Adds the key of somebody who signed in.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_sign_in(
        &self,
        by: &By,
        key: &KeyRecord,
        person: &Person,
    ) -> Result<SignedIn, StoreError> {
        self.change(|transaction| {
            let ended = end_oldest(transaction, by, person)?;
            let sql = "SELECT count(*) FROM api_keys WHERE person IS NOT NULL
                       AND revoked_at_s IS NULL AND expires_at_s > ?";
            let live: u32 = transaction.query_row(sql, [by.now_s], |row| row.get(0))?;
            if live >= ALL_SIGN_INS_MAX || !insert(transaction, key, by.now_s)? {
                return Ok(SignedIn::TooMany);
            }
            let detail = format!("sign-in of {person} as {}", key.role);
            append(transaction, by, "key.create", &key.title(), &detail)?;
            Ok(SignedIn::Now(ended))
        })
    }

    /// Forgets keys of sign-ins that ended long ago; how many. The audit log keeps that they were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn forget_sign_ins(&self, now_s: i64) -> Result<usize, StoreError> {
        let sql = "DELETE FROM api_keys WHERE person IS NOT NULL AND expires_at_s < ?";
        self.change(|transaction| Ok(transaction.execute(sql, [now_s - LISTED_S])?))
    }
}

/// Makes room for one more of the same person.
fn end_oldest(
    transaction: &Transaction<'_>,
    by: &By,
    person: &Person,
) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT id FROM api_keys
               WHERE person = ? AND revoked_at_s IS NULL AND expires_at_s > ?
               ORDER BY created_at_s DESC, rowid DESC LIMIT -1 OFFSET ?";
    let ids: Vec<String> = {
        let mut statement = transaction.prepare_cached(sql)?;
        let values = params![person.to_string(), by.now_s, SIGN_INS_MAX - 1];
        let rows = statement.query_map(values, |row| row.get(0))?;
        rows.collect::<Result<_, _>>()?
    };
    for id in &ids {
        let sql = "UPDATE api_keys SET revoked_at_s = ? WHERE id = ?";
        transaction.execute(sql, params![by.now_s, id])?;
        append(transaction, by, "key.revoke", id, "the oldest sign-in makes room for another")?;
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::super::keys::Revoked;
    use super::super::tests::{by, store};
    use super::*;
    use fleet::access::Role;
    use protocol::id::TenantName;
    use protocol::pattern::ModelPatterns;
    use protocol::token::Secret;

    fn person(subject: &str) -> Person {
        format!("https://id.example {subject}").parse().unwrap()
    }

    fn key(id: &str, role: Role, person: Option<Person>) -> KeyRecord {
        KeyRecord {
            id: id.into(),
            digest: Secret::from_entropy([1; 32]).digest(),
            role,
            name: "ada".into(),
            tenant: TenantName::default(),
            models: ModelPatterns::all(),
            expires_at_s: person.is_some().then_some(2000),
            person,
        }
    }

    fn sign_in(store: &Store, id: &str, subject: &str, now_s: i64) -> SignedIn {
        let person = person(subject);
        let key = key(id, Role::Admin, Some(person.clone()));
        store.add_sign_in(&By { now_s, ..by() }, &key, &person).unwrap()
    }

    fn live(store: &Store, now_s: i64) -> Vec<String> {
        let keys = store.api_keys().unwrap().into_iter();
        keys.filter(|key| key.is_live(now_s)).map(|key| key.record.id).collect()
    }

    #[test]
    fn the_oldest_of_nine_sign_ins_ends_and_nobody_elses() {
        let (_folder, store) = store();
        for number in 0..8 {
            assert_eq!(sign_in(&store, &format!("a{number}"), "ada", 1000), SignedIn::Now(vec![]));
        }
        assert_eq!(sign_in(&store, "b", "bob", 1000), SignedIn::Now(vec![]));
        assert_eq!(sign_in(&store, "a8", "ada", 1000), SignedIn::Now(vec!["a0".into()]));
        assert_eq!(sign_in(&store, "a9", "ada", 1001), SignedIn::Now(vec!["a1".into()]));
        assert_eq!(live(&store, 1002).len(), 9);
        let entry = &store.audit(1).unwrap()[0];
        assert_eq!((entry.action.as_str(), entry.subject.as_str()), ("key.create", "ada (a9)"));
        assert_eq!(entry.detail, "sign-in of https://id.example ada as admin");
        assert_eq!(sign_in(&store, "later", "ada", 2000), SignedIn::Now(vec![]), "all have ended");
    }

    #[test]
    fn a_sign_in_is_no_last_admin() {
        let (_folder, store) = store();
        assert!(store.add_api_key(&by(), &key("k", Role::Admin, None)).unwrap());
        sign_in(&store, "s", "ada", 1000);
        assert_eq!(store.revoke_api_key(&by(), "k").unwrap(), Revoked::LastAdmin);
        assert_eq!(store.revoke_api_key(&by(), "s").unwrap(), Revoked::Now);
        assert_eq!(store.revoke_api_key(&by(), "s").unwrap(), Revoked::Absent);
        assert_eq!(live(&store, 1500), ["k"]);
    }

    #[test]
    fn sign_ins_are_forgotten_a_while_after_their_end_and_keys_never() {
        let (_folder, store) = store();
        let short = KeyRecord { expires_at_s: Some(1500), ..key("k", Role::Viewer, None) };
        assert!(store.add_api_key(&by(), &short).unwrap());
        sign_in(&store, "s", "ada", 1000);
        let cursor = store.changes(0).unwrap().cursor;
        assert_eq!(store.forget_sign_ins(2000 + LISTED_S).unwrap(), 0);
        assert_eq!(store.forget_sign_ins(2001 + LISTED_S).unwrap(), 1);
        assert_eq!(store.api_keys().unwrap().len(), 1);
        let all = store.changes(0).unwrap();
        assert_eq!((all.keys.len(), all.cursor), (1, cursor), "nodes go on");
    }
}

//! The first key of an admin: written to a file in the data folder before the database knows it, so that a
//! start which is cut off in between is made up for by the next.

use fleet::access::{KeyRecord, Role};
use link::durable::{self, Access};
use protocol::id::{ContentHash, TenantName};
use protocol::pattern::ModelPatterns;
use protocol::token::Token;
use std::io;
use std::path::Path;

use crate::store::audit::By;
use crate::store::{Store, StoreError};

/// Its name in the data folder.
pub const FILE: &str = "admin.key";

/// Makes a key and writes it to the file, in the place of what was there.
///
/// # Errors
/// [`StoreError`]; and what the system said of the file.
pub fn make(
    store: &Store,
    path: &Path,
    ca_hash: ContentHash,
    by: &By,
) -> Result<io::Result<()>, StoreError> {
    let token = Token::from_entropy(link::entropy(), link::entropy(), ca_hash);
    keep(store, path, &token, by)
}

/// Writes a key to the file, and lets its holder be an admin.
///
/// # Errors
/// [`StoreError`]; and what the system said of the file.
pub fn keep(
    store: &Store,
    path: &Path,
    token: &Token,
    by: &By,
) -> Result<io::Result<()>, StoreError> {
    let text = format!("{}\n", token.reveal());
    if let Err(error) = durable::write(path, text.as_bytes(), Access::Private) {
        return Ok(Err(error));
    }
    let key = KeyRecord {
        id: token.id.clone(),
        digest: token.secret.digest(),
        role: Role::Admin,
        name: "admin".into(),
        tenant: TenantName::default(),
        models: ModelPatterns::all(),
        expires_at_s: None,
        person: None,
    };
    store.add_api_key(by, &key)?; // there is room: it is the first
    Ok(Ok(()))
}

//! An inference node: answers requests, and hears everything else from its control node.
//!
//! What it must know is a copy in the same tables as on the control node, so that what reads them is
//! the same on both; the copy is a cache that may be deleted. `files` is who it is, `enrol` how it
//! came to be that, `keeper` the connection to the control node, `copy` taking over what comes on
//! it, `models` the cloud variants' files, and `usage` what goes back. While the control node is
//! away, also over a restart, it goes on with what it knows.
//!
//! The other end of all this is [`crate::nodes`].

use link::tls::Identity;
use protocol::ALPN_AGENT;
use protocol::id::{ContentHash, Variant};
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::blobs::Blobs;
use crate::ca::{self, FleetCa};
use crate::data_dir::DataDir;
use crate::repository::Repository;
use crate::server::{Config, Opened, StartError};
use crate::serving::Serving;
use crate::state::Cloud;
use crate::store::{Database, Store};

mod copy;
mod enrol;
mod files;
pub(crate) mod keeper;
mod models;
mod usage;

pub use enrol::JoinError;
use files::Files;
pub use files::FilesError;
pub(crate) use keeper::Keeper;

/// Everything of an inference node but its sockets; joins the fleet where it has not yet.
pub(crate) async fn open(config: &Config, data_dir: &DataDir) -> Result<Opened, StartError> {
    let settings = &config.settings.node;
    let files = Files::new(data_dir.node());
    if !files.has_joined()? {
        enrol::enrol(&files, settings).await?;
    }
    let identity = files.identity()?;
    let (cloud, here) = open_cloud(config, data_dir, &files).await?;
    let reset_key = ca::reset_key(identity.key.secret_der());
    let keeper = Keeper::new(cloud.clone(), files, settings.join.clone(), here);
    Ok(Opened {
        cloud,
        identity,
        protocols: vec![ALPN_AGENT],
        reset_key,
        routes: crate::api::node_router,
        new_admin_key: None,
        keeper: Some(Arc::new(keeper)),
    })
}

/// What is known from before, and the cloud variants whose files are all here.
async fn open_cloud(
    config: &Config,
    data_dir: &DataDir,
    files: &Files,
) -> Result<(Arc<Cloud>, BTreeSet<ContentHash>), StartError> {
    let ca = FleetCa::elsewhere(files.ca()?);
    let store = Store::open(&data_dir.database())?;
    let contact_s = store.replica()?.contact_s;
    let blobs = Blobs::new(data_dir.blobs(), data_dir.incoming());
    let (settings, folder) = (config.serving.clone(), data_dir.bundles());
    let db = Database::new(store);
    let from = (db.clone(), blobs.clone());
    let serving = Serving::new(config.engine.backend(), from, folder, settings);
    let mut here = BTreeSet::new();
    for record in db.store().bundles()? {
        if record.variant == Variant::Cloud && models::is_whole(&blobs, &record.signed) {
            serving.add(&record.signed, None)?;
            here.insert(record.bundle);
        }
    }
    for (model, policy) in db.store().policies()? {
        serving.set_policy(&model, policy);
    }
    let records = crate::server::open_records(config, Some(files.name()?))?;
    let engine = config.engine.clone();
    let cloud =
        Cloud::new(db, (ca, Repository::elsewhere()), blobs, (serving, engine), records).await?;
    cloud.control.away_since(contact_s);
    Ok((cloud, here))
}

/// A certificate chain as it came over the wire, with the key that it is for.
fn chain_of(certificates: &[bytes::Bytes]) -> Vec<rustls_pki_types::CertificateDer<'static>> {
    certificates.iter().map(|der| der.to_vec().into()).collect()
}

/// What is done with a fresh certificate.
pub(crate) type Renewed = Box<dyn Fn(Identity) -> Result<(), StartError> + Send + Sync>;

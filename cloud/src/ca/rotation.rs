//! Another fleet CA in the place of the one that there is, without a hand laid on a device.
//!
//! The old key signs a certificate for the new one, and is destroyed. From then on the server shows, behind
//! its own certificate, the new CA, that *cross* certificate and the old CA. Whoever trusts the old one
//! follows: a device when it connects next, however long it was away; it then asks for a certificate of the
//! new CA. Until the overlap is over, certificates of the old one are taken too, and tokens that name it.
//!
//! A rotation is one file (`next.pem`), written whole: the new key, its certificate, the cross certificate
//! and the old CA. The next start takes it over, step by step, from the beginning if it was cut off.

use link::durable;
use link::pki::{chain_from_pem, chain_to_pem, validity_s};
use protocol::id::ContentHash;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{CLOCK_TOLERANCE, CaError, FleetCa, fresh_certificate, read, write};

/// What the next start takes over.
const NEXT: &str = "next.pem";
/// The cross certificate and the old CA, for as long as the overlap lasts.
const PREVIOUS: &str = "previous.pem";

/// How long the old CA is believed unless said otherwise: as long as a device's certificate can be renewed
/// after its end.
pub const OVERLAP: Duration = link::tls::RENEWAL_GRACE;

/// Why the fleet CA was not exchanged.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The last exchange is not over.
    #[error("the CA before this one is still believed, until all have moved")]
    UnderWay,
    /// There is no exchange.
    #[error("there is no CA from before that would be believed")]
    None,
    /// Its files.
    #[error(transparent)]
    Ca(#[from] CaError),
}

/// The CA before the current one, while it is believed.
#[derive(Debug, Clone)]
pub struct Previous {
    /// The current CA's key, certified by it.
    pub cross: CertificateDer<'static>,
    /// Itself.
    pub certificate: CertificateDer<'static>,
}

impl Previous {
    /// Unix seconds until which it is believed.
    pub fn until_s(&self) -> i64 {
        validity_s(&self.cross).map_or(0, |(_, until_s)| until_s)
    }

    /// Unix seconds since when the current CA is in its place.
    pub fn since_s(&self) -> i64 {
        let tolerance_s = i64::try_from(CLOCK_TOLERANCE.as_secs()).unwrap_or(0);
        validity_s(&self.cross).map_or(0, |(from_s, _)| from_s + tolerance_s)
    }
}

/// Prepares the exchange of the CA in this folder; the next start of the server carries it out. The hash of
/// the new CA.
///
/// # Errors
/// [`RotationError`]; everything is as it was then.
pub fn rotate(folder: &Path, overlap: Duration) -> Result<ContentHash, RotationError> {
    if folder.join(NEXT).exists() || previous(folder)?.is_some() {
        return Err(RotationError::UnderWay);
    }
    let old = FleetCa::open(folder)?;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(CaError::Make)?;
    let (params, certificate) = fresh_certificate(&key).map_err(CaError::Make)?;
    let cross = cross(params, &key, old.issuer()?, overlap).map_err(CaError::Make)?;
    let hash = ContentHash::of(&certificate);
    let chain = chain_to_pem(&[certificate, cross, old.certificate]);
    write(&folder.join(NEXT), &format!("{}{chain}", key.serialize_pem()))?;
    Ok(hash)
}

/// The new CA's key under its own name, by the old CA.
fn cross(
    mut params: CertificateParams,
    key: &KeyPair,
    old: &Issuer<'static, KeyPair>,
    overlap: Duration,
) -> Result<CertificateDer<'static>, rcgen::Error> {
    let now = SystemTime::now();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = (now - CLOCK_TOLERANCE).into();
    params.not_after = (now + overlap).into();
    params.use_authority_key_identifier_extension = true;
    Ok(params.signed_by(key, old)?.der().clone())
}

/// Carries an exchange out that was prepared. Each step can be repeated; the last one is the end of it.
pub(super) fn take_over(folder: &Path) -> Result<(), CaError> {
    let path = folder.join(NEXT);
    let Some(text) = read(&path)? else { return Ok(()) };
    let key = KeyPair::from_pem(&text)?;
    let chain = chain_from_pem(text.as_bytes())?;
    let [new, cross, old] = <[CertificateDer<'_>; 3]>::try_from(chain)
        .map_err(|_| CaError::Damaged(link::pki::PkiError::Certificate))?;
    write(&folder.join(PREVIOUS), &chain_to_pem(&[cross, old]))?;
    write(&folder.join("ca.pem"), &chain_to_pem(&[new]))?;
    write(&folder.join("ca.key"), &key.serialize_pem())?; // the old key ends here
    remove(&path)
}

/// The CA before, if it is believed now.
pub(super) fn previous(folder: &Path) -> Result<Option<Previous>, CaError> {
    let Some(text) = read(&folder.join(PREVIOUS))? else { return Ok(None) };
    let [cross, certificate] =
        <[CertificateDer<'_>; 2]>::try_from(chain_from_pem(text.as_bytes())?)
            .map_err(|_| CaError::Damaged(link::pki::PkiError::Certificate))?;
    let previous = Previous { cross, certificate };
    Ok(Some(previous).filter(|previous| crate::state::now_s() < previous.until_s()))
}

/// Whether the next start carries an exchange out.
pub fn is_prepared(folder: &Path) -> bool {
    folder.join(NEXT).exists()
}

/// Ends the overlap; holds from the next start on.
///
/// # Errors
/// [`RotationError::None`], or the file's own.
pub fn retire(folder: &Path) -> Result<(), RotationError> {
    if previous(folder)?.is_none() {
        return Err(RotationError::None);
    }
    Ok(remove(&folder.join(PREVIOUS))?)
}

fn remove(path: &Path) -> Result<(), CaError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let removed = match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => durable::sync_folder(folder),
    };
    removed.map_err(|source| CaError::Io { path: path.to_owned(), source })
}

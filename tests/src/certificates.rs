//! A certificate authority made for one run, and a server on loopback that it vouches for.

use link::pki;
use link::tls::Identity;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// What a server shows, and whom its clients trust.
pub struct Certificates {
    /// The authority's.
    pub ca: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Certificates {
    /// Makes them, on P-256.
    ///
    /// # Errors
    /// A certificate cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        let key = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (ca_key, key) = (key()?, key()?);
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key)?.der().clone();
        let leaf = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let leaf = leaf.signed_by(&key, &Issuer::new(params, &ca_key))?;
        Ok(Self { chain: vec![leaf.der().clone(), ca.clone()], ca, key })
    }

    /// The server's.
    pub fn identity(&self) -> Identity {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        Identity { chain: self.chain.clone(), key: PrivateKeyDer::from(key).into() }
    }

    /// The server's chain and key, as PEM.
    pub fn identity_pem(&self) -> (String, String) {
        (pki::chain_to_pem(&self.chain), self.key.serialize_pem())
    }

    /// The authority's, as PEM.
    pub fn ca_pem(&self) -> String {
        pki::chain_to_pem(std::slice::from_ref(&self.ca))
    }
}

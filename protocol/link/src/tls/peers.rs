//! Between two devices both ends show what the fleet CA has made for them, and neither is a server by that: the rules
//! for clients hold in both directions.

use super::{Identity, TlsError, beginning, provider, roots};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// Both sides of connections to other devices of the fleet. Chain and signature of the other end are verified in the
/// handshake; which device it is, and whether its certificate is valid at this time, the caller must judge before
/// anything else.
///
/// # Errors
/// A CA, chain or key that rustls refuses.
pub fn peers(
    cas: &[CertificateDer<'static>],
    identity: Identity,
) -> Result<(ClientConfig, ServerConfig), TlsError> {
    let roots = Arc::new(roots(cas)?);
    let rules = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
    let any = Arc::new(AnyDevice(rules));
    let own = identity.certified()?;
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous() // no name is compared: the caller knows which device it wants
        .with_custom_certificate_verifier(any.clone())
        .with_client_cert_resolver(own.clone());
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(any)
        .with_cert_resolver(own);
    client.alpn_protocols = vec![protocol::ALPN_PEER.to_vec()];
    server.alpn_protocols = vec![protocol::ALPN_PEER.to_vec()];
    client.enable_early_data = false;
    server.max_early_data_size = 0;
    Ok((client, server))
}

/// A certificate for a device, of the fleet CA, at a time at which it was valid.
#[derive(Debug)]
struct AnyDevice(Arc<dyn ClientCertVerifier>);

impl AnyDevice {
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<ClientCertVerified, rustls::Error> {
        let then = beginning(end_entity)?; // not the system's clock, which may be years off
        self.0.verify_client_cert(end_entity, intermediates, then)
    }
}

impl ServerCertVerifier for AnyDevice {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates).map(|_| ServerCertVerified::assertion())
    }

    signatures_as_inner!();
}

impl ClientCertVerifier for AnyDevice {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates)
    }

    signatures_as_inner!();
}

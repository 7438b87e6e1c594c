//! Devices that were away for long: their certificate as the fleet CA would have made it then.

use super::World;
use anyhow::Context;
use link::pki::{DeviceCertificate, chain_from_pem, chain_to_pem};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use std::path::Path;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);

impl World {
    /// Gives a device the certificate that it would have had `days` ago.
    ///
    /// # Errors
    /// The identity of the device or the cloud cannot be read or written.
    pub fn age_certificate(&self, state_dir: &Path, days: u32) -> anyhow::Result<()> {
        let first = |name: &str| {
            let chain = chain_from_pem(&std::fs::read(state_dir.join(name))?)?;
            chain.into_iter().next().context("an empty chain")
        };
        let ca = first("ca.pem")?;
        let read_key =
            |path: &Path| anyhow::Ok(KeyPair::from_pem(&std::fs::read_to_string(path)?)?);
        let ca_key = read_key(&self.cloud.data_dir().join("ca/ca.key"))?;
        let issuer = Issuer::from_ca_cert_der(&ca, ca_key)?;
        let mut params = CertificateParams::default();
        let device = DeviceCertificate::parse(&first("device.pem")?)?.device;
        params.distinguished_name.push(DnType::CommonName, device.as_str());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = (SystemTime::now() - DAY * (days + 1)).into();
        params.not_after = (SystemTime::now() - DAY * days).into();
        let old = params.signed_by(&read_key(&state_dir.join("device.key"))?, &issuer)?;
        let chain = chain_to_pem(&[old.der().clone(), ca]);
        Ok(std::fs::write(state_dir.join("device.pem"), chain)?)
    }
}

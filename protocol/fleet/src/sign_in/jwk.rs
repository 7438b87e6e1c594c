//! The keys by which a provider signs (RFC 7517), and what a signature by one of them is (RFC 7518, 8037).

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;
use std::str::FromStr;

use super::decoded;

/// The longest answer that is read for a set of keys.
pub const KEYS_MAX_BYTES: usize = 256 << 10;
/// Keys of a set.
pub const KEYS_MAX: usize = 64;

/// How a token may be signed: by a key of which only the provider has the private half. `none` and secrets that
/// both sides know are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA, PKCS #1 v1.5, SHA-256.
    Rs256,
    /// SHA-384.
    Rs384,
    /// SHA-512.
    Rs512,
    /// RSA, PSS, SHA-256.
    Ps256,
    /// SHA-384.
    Ps384,
    /// SHA-512.
    Ps512,
    /// ECDSA on P-256.
    Es256,
    /// ECDSA on P-384.
    Es384,
    /// Ed25519, under both of its names.
    Ed25519,
}

/// No algorithm that is believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no algorithm that an ID token may be signed with")]
pub struct UnknownAlgorithm(pub String);

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;
    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        Ok(match text {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" | "Ed25519" => Self::Ed25519,
            _ => return Err(UnknownAlgorithm(text.chars().take(32).collect())),
        })
    }
}

/// A public key, as its kind has it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// A key that signatures can be checked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerificationKey {
    id: Option<String>,
    /// The only one that it is for, where that is said.
    algorithm: Option<Algorithm>,
    material: Material,
}

/// What a provider says of a key.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// All keys of a provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet(Vec<VerificationKey>);

/// Why a set of keys cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// More than is read.
    #[error("the provider's keys are larger than {} KiB", KEYS_MAX_BYTES >> 10)]
    TooLarge,
    /// More of them than are tried.
    #[error("the provider has more than {KEYS_MAX} keys")]
    TooMany,
    /// No set of keys.
    #[error("the provider's keys cannot be read")]
    Json(#[from] serde_json::Error),
}

impl KeySet {
    /// The keys that signatures can be checked by. Others, of which a set may have some too, are left out.
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Jwks {
            keys: Vec<serde_json::Value>,
        }
        if bytes.len() > KEYS_MAX_BYTES {
            return Err(KeySetError::TooLarge);
        }
        let Jwks { keys } = serde_json::from_slice(bytes)?;
        if keys.len() > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        Ok(Self(keys.into_iter().filter_map(VerificationKey::from_json).collect()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that may have signed: for this algorithm, and of this id where the token names one.
    pub fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a VerificationKey> {
        let is_named =
            move |key: &&VerificationKey| id.is_none_or(|id| key.id.as_deref() == Some(id));
        self.0.iter().filter(is_named).filter(move |key| key.is_for(algorithm))
    }
}

impl VerificationKey {
    fn from_json(json: serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(json).ok()?;
        let may_verify = jwk.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !may_verify {
            return None;
        }
        let algorithm = jwk.alg.as_deref().map(str::parse).transpose().ok()?;
        Some(Self { material: Material::of(&jwk)?, id: jwk.kid, algorithm })
    }

    fn is_for(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{Ed25519, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        let fits = match self.material {
            Material::Rsa { .. } => {
                matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512)
            }
            Material::P256(_) => algorithm == Es256,
            Material::P384(_) => algorithm == Es384,
            Material::Ed25519(_) => algorithm == Ed25519,
        };
        fits && self.algorithm.is_none_or(|own| own == algorithm)
    }

    /// Whether this key has signed the message. RSA keys have 2,048 bits or more.
    pub fn has_signed(&self, message: &[u8], signature: &[u8], algorithm: Algorithm) -> bool {
        let by = |verification: &'static dyn VerificationAlgorithm, point: &[u8]| {
            UnparsedPublicKey::new(verification, point).verify(message, signature).is_ok()
        };
        let is_signed = match &self.material {
            Material::Rsa { n, e } => rsa(algorithm).is_some_and(|rsa| {
                RsaPublicKeyComponents { n, e }.verify(rsa, message, signature).is_ok()
            }),
            Material::P256(point) => by(&ECDSA_P256_SHA256_FIXED, point),
            Material::P384(point) => by(&ECDSA_P384_SHA384_FIXED, point),
            Material::Ed25519(point) => by(&ED25519, point),
        };
        is_signed && self.is_for(algorithm)
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::Ed25519 => return None,
    })
}

impl Material {
    fn of(jwk: &Jwk) -> Option<Self> {
        match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Some(Self::Rsa { n: number(&jwk.n)?, e: number(&jwk.e)? }),
            ("EC", Some("P-256")) => point(jwk, 32).map(Self::P256),
            ("EC", Some("P-384")) => point(jwk, 48).map(Self::P384),
            ("OKP", Some("Ed25519")) => bytes(&jwk.x, 32).map(Self::Ed25519),
            _ => None,
        }
    }
}

/// A number, as ring wants it: without zeros in front, which some providers write.
fn number(text: &Option<String>) -> Option<Vec<u8>> {
    let bytes = decoded(text.as_ref()?)?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes[first..].to_vec())
}

/// A point on a curve, not compressed.
fn point(jwk: &Jwk, size_bytes: usize) -> Option<Vec<u8>> {
    Some([&[4], &bytes(&jwk.x, size_bytes)?[..], &bytes(&jwk.y, size_bytes)?[..]].concat())
}

fn bytes(text: &Option<String>, size_bytes: usize) -> Option<Vec<u8>> {
    decoded(text.as_ref()?).filter(|bytes| bytes.len() == size_bytes)
}

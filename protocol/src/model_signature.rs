//! Signatures over a folder of files in the OpenSSF's form for models, for whoever gets a model outside of
//! this system: a Sigstore bundle (v0.3) around a DSSE envelope around an in-toto statement (v1) that names
//! each file by SHA-256. The key is a bare P-256 pair (ECDSA with SHA-256); PyPI's `model-signing` makes and
//! verifies the same.
//!
//! Devices do not look at it: what they install is said by manifests and the repository ([`crate::tuf`]).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SecureRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::id::{ContentHash, Hasher};
use crate::limits::MODEL_SIGNATURE_MAX_BYTES;
use crate::tuf::key::{EC_P256, from_pem, public_bits};

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://model_signing/signature/v1.0";
const KEY_LABEL: &str = "PRIVATE KEY";
const PUBLIC_LABEL: &str = "PUBLIC KEY";

/// Files of a model, by path with `/` between names.
pub type Files = BTreeMap<String, ContentHash>;

/// Why a signature is no good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidModelSignature {
    /// Not such a bundle.
    #[error("not a model signature: {0}")]
    Malformed(String),
    /// A kind that is not read here.
    #[error("a model signature of a kind that is not read here: {0}")]
    Unsupported(String),
    /// Not a P-256 key in PEM (private: PKCS #8).
    #[error("not a P-256 key in PEM (a private one as PKCS #8)")]
    Key,
    /// Signed by another key, or altered.
    #[error(
        "the signature does not fit: the model was signed by another key, or the signature altered"
    )]
    Forged,
    /// The statement names other files than its own digest is over.
    #[error("the signature contradicts itself")]
    Inconsistent,
}

/// What was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedFiles {
    /// The model's name, as the signer's folder had it.
    pub name: String,
    /// Every file.
    pub files: Files,
    /// Paths below which nothing was signed.
    pub ignored: Vec<String>,
}

/// The private half of a pair.
pub struct ModelKey(EcdsaKeyPair);

impl ModelKey {
    /// A fresh pair, as PEM.
    ///
    /// # Errors
    /// [`InvalidModelSignature::Key`], where the given randomness gives none.
    pub fn generate_pem(random: &dyn SecureRandom) -> Result<String, InvalidModelSignature> {
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, random);
        Ok(to_pem(KEY_LABEL, key.map_err(|_| InvalidModelSignature::Key)?.as_ref()))
    }

    /// Reads a pair.
    ///
    /// # Errors
    /// [`InvalidModelSignature::Key`].
    pub fn from_pem(pem: &str, random: &dyn SecureRandom) -> Result<Self, InvalidModelSignature> {
        let der = from_pem(KEY_LABEL, pem).ok_or(InvalidModelSignature::Key)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der, random);
        key.map(Self).map_err(|_| InvalidModelSignature::Key)
    }

    /// Its public half, as PEM.
    pub fn public_pem(&self) -> String {
        public_pem(self.0.public_key().as_ref())
    }

    /// Signs files; the bundle, as JSON.
    ///
    /// # Errors
    /// [`InvalidModelSignature::Key`], where the given randomness gives none.
    pub fn sign(
        &self,
        signed: &SignedFiles,
        random: &dyn SecureRandom,
    ) -> Result<String, InvalidModelSignature> {
        let payload = serde_json::to_vec(&Statement::of(signed)).expect("strings are always JSON");
        let signature =
            self.0.sign(random, &pae(&payload)).map_err(|_| InvalidModelSignature::Key)?;
        let bundle = Bundle {
            media_type: MEDIA_TYPE.to_owned(),
            verification_material: Material {
                public_key: PublicKeyHint { hint: hint(&self.public_pem()) },
                tlog_entries: Vec::new(),
            },
            dsse_envelope: Envelope {
                payload: STANDARD.encode(&payload),
                payload_type: PAYLOAD_TYPE.to_owned(),
                signatures: vec![Signature {
                    sig: STANDARD.encode(signature),
                    keyid: String::new(),
                }],
            },
        };
        Ok(serde_json::to_string(&bundle).expect("strings are always JSON"))
    }
}

/// What a bundle says was signed, by the holder of this public key.
///
/// # Errors
/// [`InvalidModelSignature`].
pub fn verify(bundle: &[u8], public_key: &str) -> Result<SignedFiles, InvalidModelSignature> {
    let malformed = |why: &dyn ToString| InvalidModelSignature::Malformed(why.to_string());
    if bundle.len() > MODEL_SIGNATURE_MAX_BYTES {
        return Err(malformed(&format!("more than {MODEL_SIGNATURE_MAX_BYTES} bytes")));
    }
    let bundle: Bundle = serde_json::from_slice(bundle).map_err(|e| malformed(&e))?;
    for (found, expected) in
        [(&bundle.media_type, MEDIA_TYPE), (&bundle.dsse_envelope.payload_type, PAYLOAD_TYPE)]
    {
        if found != expected {
            return Err(InvalidModelSignature::Unsupported(found.clone()));
        }
    }
    let point = public_bits(public_key, &EC_P256).ok_or(InvalidModelSignature::Key)?;
    if bundle.verification_material.public_key.hint != hint(&public_pem(&point)) {
        return Err(InvalidModelSignature::Forged);
    }
    let payload = STANDARD.decode(&bundle.dsse_envelope.payload).map_err(|e| malformed(&e))?;
    let [signature] = bundle.dsse_envelope.signatures.as_slice() else {
        return Err(malformed(&"not one signature"));
    };
    let signature = STANDARD.decode(&signature.sig).map_err(|e| malformed(&e))?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
        .verify(&pae(&payload), &signature)
        .map_err(|_| InvalidModelSignature::Forged)?;
    let statement: Statement = serde_json::from_slice(&payload).map_err(|e| malformed(&e))?;
    statement.read()
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    public_key: PublicKeyHint,
    #[serde(default)]
    tlog_entries: Vec<serde_json::Value>,
}

/// SHA-256 of the public key's PEM, hexadecimal.
#[derive(Serialize, Deserialize)]
struct PublicKeyHint {
    hint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
struct Signature {
    sig: String,
    #[serde(default)]
    keyid: String,
}

#[derive(Serialize, Deserialize)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Serialize, Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    allow_symlinks: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ignore_paths: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

impl Statement {
    fn of(signed: &SignedFiles) -> Self {
        let resource = |(name, digest): (&String, &ContentHash)| Resource {
            name: name.clone(),
            algorithm: "sha256".to_owned(),
            digest: digest.to_string(),
        };
        let digest = [("sha256".to_owned(), digest_of(signed.files.values()).to_string())].into();
        Self {
            kind: STATEMENT_TYPE.to_owned(),
            subject: vec![Subject { name: signed.name.clone(), digest }],
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: Predicate {
                serialization: Serialization {
                    method: "files".to_owned(),
                    hash_type: "sha256".to_owned(),
                    allow_symlinks: false,
                    ignore_paths: signed.ignored.clone(),
                },
                resources: signed.files.iter().map(resource).collect(),
            },
        }
    }

    fn read(self) -> Result<SignedFiles, InvalidModelSignature> {
        let Predicate { serialization, resources } = self.predicate;
        let way = format!("{} {}", serialization.method, serialization.hash_type);
        for (found, expected) in [
            (&self.kind, STATEMENT_TYPE),
            (&self.predicate_type, PREDICATE_TYPE),
            (&way, "files sha256"),
        ] {
            if found != expected {
                return Err(InvalidModelSignature::Unsupported(found.clone()));
            }
        }
        let [subject] = self.subject.try_into().map_err(|_| InvalidModelSignature::Inconsistent)?;
        let (mut files, mut hashes) = (Files::new(), Vec::new());
        for Resource { name, algorithm, digest } in resources {
            let hash: Option<ContentHash> = digest.parse().ok();
            let hash = hash.filter(|_| algorithm == "sha256");
            let hash = hash.ok_or(InvalidModelSignature::Unsupported(algorithm))?;
            hashes.push(hash);
            if files.insert(name, hash).is_some() {
                return Err(InvalidModelSignature::Inconsistent);
            }
        }
        let Subject { name, digest } = subject;
        if digest.get("sha256") != Some(&digest_of(&hashes).to_string()) {
            return Err(InvalidModelSignature::Inconsistent);
        }
        Ok(SignedFiles { name, files, ignored: serialization.ignore_paths })
    }
}

/// The digest of all digests, in their order.
fn digest_of<'a>(hashes: impl IntoIterator<Item = &'a ContentHash>) -> ContentHash {
    let mut hasher = Hasher::default();
    for hash in hashes {
        hasher.update(hash.as_bytes());
    }
    hasher.finish()
}

/// What is signed of a payload (DSSE 1.0, pre-authentication encoding).
fn pae(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

fn hint(public_pem: &str) -> String {
    ContentHash::of(public_pem.as_bytes()).to_string()
}

fn public_pem(point: &[u8]) -> String {
    let bits = [&[0x03, 0x42, 0x00], point].concat(); // 65 bytes and the count of unused bits
    let info = [EC_P256.as_slice(), &bits].concat();
    to_pem(PUBLIC_LABEL, &[&[0x30, 0x59], info.as_slice()].concat())
}

fn to_pem(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in base64.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}

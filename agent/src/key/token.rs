//! A key in a token: found or made there, never seen here.
//!
//! The PIN is counted by the token, which locks itself after a few wrong ones. So a PIN that was refused is
//! not shown again by this process, and nobody's last try is used: that is left to a person.

use super::uri::KeyUri;
use ::link::durable::aside;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as ModuleError, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use protocol::id::ContentHash;
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The curve P-256, as an object identifier in DER.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// An uncompressed point of it.
const POINT_BYTES: usize = 65;
/// The longest PIN.
const PIN_MAX_BYTES: u64 = 256;

/// Why a token's key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the PKCS#11 module {} cannot be used", path.display())]
    Module { path: PathBuf, source: ModuleError },
    #[error("no token is there that the URI names; there are: {}", .0.join(", "))]
    NoToken(Vec<String>),
    #[error("{0} tokens are there that the URI may mean")]
    ManyTokens(usize),
    #[error("the token asks for a PIN, and the URI names no file with it")]
    NoPin,
    #[error("the PIN cannot be read from {}", path.display())]
    PinFile { path: PathBuf, source: io::Error },
    #[error("the PIN in {} can be read by others", .0.display())]
    PinOpen(PathBuf),
    #[error("the token refuses the PIN")]
    WrongPin,
    #[error("the token refused this PIN before; it was not shown again")]
    RefusedBefore,
    #[error("one more wrong PIN would lock the token, so none was shown")]
    LastTry,
    #[error("the token is locked: too many wrong PINs")]
    Locked,
    #[error("there is no such key in the token")]
    Gone,
    #[error("{0} keys are there that the URI may mean")]
    ManyKeys(usize),
    #[error("the key is none of the curve P-256 that signs")]
    OtherKind,
    #[error("the key could be taken out of the token")]
    Extractable,
    #[error("the token failed")]
    Device(#[from] ModuleError),
}

impl TokenError {
    /// What a person can do.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Module { .. } => {
                "is it installed, and its path right? Debian: libtpm2-pkcs11-1, softhsm2, opensc-pkcs11"
            }
            Self::NoToken(_) => {
                "is it plugged in and initialised, and may the agent's user open it?"
            }
            Self::ManyTokens(_) => "say more in the URI: token=, serial= or slot-id=",
            Self::NoPin | Self::PinFile { .. } => "name it in the URI: pin-source=file:/PATH",
            Self::PinOpen(_) => "make it the agent's alone: chmod 600",
            Self::WrongPin | Self::RefusedBefore => {
                "correct the PIN in its file before it is tried again: a token locks itself after a few"
            }
            Self::LastTry => "make sure of the PIN by hand: a right one gives all tries back",
            Self::Locked => "its administrator can unlock it, with the SO PIN",
            Self::Gone => "is it the right token? If the key is lost: enrol again with --replace",
            Self::ManyKeys(_) => "say more in the URI: object= and id=",
            Self::OtherKind | Self::Extractable => {
                "name one that does not exist yet: enrol makes it as it should be"
            }
            Self::Device(_) => "is the token still there?",
        }
    }
}

/// A key in a token.
#[derive(Debug)]
pub(crate) struct TokenKey {
    uri: KeyUri,
    /// The token's name, for people.
    token: String,
    /// Its public half, uncompressed.
    point: Vec<u8>,
    /// Lost with the token, and opened anew.
    open: Mutex<Option<Open>>,
    /// Goes last: sessions are closed before.
    module: Loaded,
}

/// A module that was initialised, and is told when it is needed no longer: a TPM holds a few sessions only.
#[derive(Debug)]
struct Loaded(Pkcs11);

impl Drop for Loaded {
    fn drop(&mut self) {
        let _ = self.0.clone().finalize(); // it was told before, or its token is gone
    }
}

/// SHA-256 of each URI and PIN that was refused. Of the process, for a connection is tried again and again,
/// and the token counts.
static REFUSED: Mutex<BTreeSet<ContentHash>> = Mutex::new(BTreeSet::new());

#[derive(Debug)]
struct Open {
    session: Session,
    key: ObjectHandle,
}

impl TokenKey {
    /// The key that the URI names.
    pub(crate) fn find(uri: &KeyUri) -> Result<Arc<Self>, TokenError> {
        Self::open(uri, false)
    }

    /// The key that the URI names, made in the token where there is none.
    pub(crate) fn find_or_make(uri: &KeyUri) -> Result<Arc<Self>, TokenError> {
        Self::open(uri, true)
    }

    fn open(uri: &KeyUri, make: bool) -> Result<Arc<Self>, TokenError> {
        let module = load(&uri.module)?;
        let (session, token) = log_in(&module.0, uri)?;
        let key = match find(&session, uri) {
            Err(TokenError::Gone) if make => generate(&session, uri)?,
            found => found?,
        };
        let point = public_point(&session, uri, key)?;
        check_kept(&session, key)?;
        let (uri, open) = (uri.clone(), Mutex::new(Some(Open { session, key })));
        Ok(Arc::new(Self { uri, token, point, open, module }))
    }

    /// Lets the token go; of no use afterwards.
    pub(crate) fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let _ = self.module.0.clone().finalize(); // the process ends
    }

    /// Its public half, uncompressed.
    pub(crate) fn point(&self) -> &[u8] {
        &self.point
    }

    /// Where it lives, for people.
    pub(crate) fn place(&self) -> String {
        let module = self.uri.module.file_name().unwrap_or_default().to_string_lossy();
        format!("in the token {} ({module}), which does not let it out", self.token)
    }

    /// Signs by ECDSA with SHA-256; the signature is ASN.1. A session that was lost is opened anew, once.
    pub(crate) fn sign(&self, text: &[u8]) -> Result<Vec<u8>, TokenError> {
        let hash = ContentHash::of(text);
        aside(|| {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let had_one = open.is_some();
            match self.sign_once(&mut open, hash.as_bytes()) {
                Err(TokenError::Device(_)) if had_one => {
                    *open = None;
                    self.sign_once(&mut open, hash.as_bytes())
                }
                result => result,
            }
        })
    }

    fn sign_once(&self, open: &mut Option<Open>, hash: &[u8]) -> Result<Vec<u8>, TokenError> {
        let Open { session, key } = match open {
            Some(open) => open,
            None => {
                let (session, _) = log_in(&self.module.0, &self.uri)?;
                let key = find(&session, &self.uri)?;
                open.insert(Open { session, key })
            }
        };
        let raw = session.sign(&Mechanism::Ecdsa, *key, hash)?;
        signature_der(&raw).ok_or(TokenError::OtherKind)
    }
}

fn load(path: &Path) -> Result<Loaded, TokenError> {
    let failed = |source| TokenError::Module { path: path.to_owned(), source };
    let module = Pkcs11::new(path).map_err(failed)?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Err(ModuleError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) | Ok(()) => {
            Ok(Loaded(module))
        }
        Err(source) => Err(failed(source)),
    }
}

/// A session with the token, and the token's name.
fn log_in(module: &Pkcs11, uri: &KeyUri) -> Result<(Session, String), TokenError> {
    let (slot, info) = find_token(module, uri)?;
    let session = module.open_rw_session(slot)?;
    if info.login_required() {
        let pin = read_pin(uri.pin_file.as_deref().ok_or(TokenError::NoPin)?)?;
        show_pin(&session, &info, uri, pin)?;
    }
    Ok((session, info.label().to_owned()))
}

/// Shows a PIN, unless it was refused before or is the last that may be wrong.
fn show_pin(
    session: &Session,
    info: &TokenInfo,
    uri: &KeyUri,
    pin: String,
) -> Result<(), TokenError> {
    let shown = ContentHash::of(format!("{uri} {pin}").as_bytes());
    let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    may_show(info.user_pin_locked(), refused.contains(&shown), info.user_pin_final_try())?;
    match session.login(UserType::User, Some(&AuthPin::new(pin.into()))) {
        Ok(()) | Err(ModuleError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(ModuleError::Pkcs11(RvError::PinLocked, _)) => Err(TokenError::Locked),
        Err(ModuleError::Pkcs11(
            RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange,
            _,
        )) => {
            refused.insert(shown);
            Err(TokenError::WrongPin)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a PIN is shown to a token in this state. SoftHSM never says that one try is left; smart cards do.
fn may_show(is_locked: bool, was_refused: bool, is_last_try: bool) -> Result<(), TokenError> {
    match (is_locked, was_refused, is_last_try) {
        (true, _, _) => Err(TokenError::Locked),
        (false, true, _) => Err(TokenError::RefusedBefore),
        (false, false, true) => Err(TokenError::LastTry),
        (false, false, false) => Ok(()),
    }
}

fn find_token(module: &Pkcs11, uri: &KeyUri) -> Result<(Slot, TokenInfo), TokenError> {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for slot in module.get_slots_with_token()? {
        let Ok(info) = module.get_token_info(slot) else { continue }; // it was just taken out
        let is = |wanted: &Option<String>, own: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == own.trim_end())
        };
        let matches = is(&uri.token, info.label())
            && is(&uri.manufacturer, info.manufacturer_id())
            && is(&uri.model, info.model())
            && is(&uri.serial, info.serial_number())
            && uri.slot.is_none_or(|wanted| wanted == slot.id());
        match matches && info.token_initialized() {
            true => found.push((slot, info)),
            false => others.push(format!("{:?}", info.label())),
        }
    }
    match found.len() {
        0 => Err(TokenError::NoToken(others)),
        1 => Ok(found.swap_remove(0)),
        many => Err(TokenError::ManyTokens(many)),
    }
}

fn read_pin(path: &Path) -> Result<String, TokenError> {
    use std::io::Read;
    let failed = |source| TokenError::PinFile { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
            return Err(TokenError::PinOpen(path.to_owned()));
        }
    }
    let mut text = String::new();
    file.take(PIN_MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn template(uri: &KeyUri, class: ObjectClass) -> Vec<Attribute> {
    let mut template = vec![Attribute::Class(class), Attribute::Token(true)];
    template.extend(uri.object.as_ref().map(|l| Attribute::Label(l.as_bytes().to_vec())));
    template.extend(uri.id.as_ref().map(|id| Attribute::Id(id.clone())));
    template
}

fn find(session: &Session, uri: &KeyUri) -> Result<ObjectHandle, TokenError> {
    let mut found = session.find_objects(&template(uri, ObjectClass::PRIVATE_KEY))?;
    match found.len() {
        0 => Err(TokenError::Gone),
        1 => Ok(found.swap_remove(0)),
        many => Err(TokenError::ManyKeys(many)),
    }
}

/// Makes the key, in the token and for nobody to take out.
fn generate(session: &Session, uri: &KeyUri) -> Result<ObjectHandle, TokenError> {
    let id = uri.id.clone().unwrap_or_else(|| ::link::entropy::<8>().to_vec());
    let label = uri.object.clone().unwrap_or_else(|| "outrigger".into()).into_bytes();
    let both = [Attribute::Token(true), Attribute::Label(label), Attribute::Id(id)];
    let public =
        [Attribute::Private(false), Attribute::Verify(true), Attribute::EcParams(P256.into())];
    let private = [
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
    ];
    let public = [&both[..], &public].concat();
    let private = [&both[..], &private].concat();
    let (_, key) = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
    Ok(key)
}

/// The public half of a key; beside it in the token, under the same id.
fn public_point(session: &Session, uri: &KeyUri, key: ObjectHandle) -> Result<Vec<u8>, TokenError> {
    let id = session.get_attributes(key, &[AttributeType::Id])?.into_iter().next();
    let mut wanted = KeyUri { id: None, ..uri.clone() };
    if let Some(Attribute::Id(id)) = id {
        (wanted.id, wanted.object) = (Some(id), None);
    }
    let public = session.find_objects(&template(&wanted, ObjectClass::PUBLIC_KEY))?;
    let public = *public.first().ok_or(TokenError::Gone)?;
    let read = [AttributeType::KeyType, AttributeType::EcParams, AttributeType::EcPoint];
    let mut point = None;
    for attribute in session.get_attributes(public, &read)? {
        match attribute {
            Attribute::KeyType(kind) if kind != KeyType::EC => return Err(TokenError::OtherKind),
            Attribute::EcParams(curve) if curve != P256 => return Err(TokenError::OtherKind),
            Attribute::EcPoint(bytes) => point = Some(bytes),
            _ => {}
        }
    }
    // An OCTET STRING in DER, as the standard has it, or bare, as some modules do.
    let point = point.ok_or(TokenError::OtherKind)?;
    let bare = point.strip_prefix(&[0x04, 0x41]).filter(|p| p.len() == POINT_BYTES);
    let bare = bare.unwrap_or(&point);
    match bare.len() == POINT_BYTES && bare[0] == 4 {
        true => Ok(bare.to_vec()),
        false => Err(TokenError::OtherKind),
    }
}

/// A key that could leave its token is worth no more than a file.
fn check_kept(session: &Session, key: ObjectHandle) -> Result<(), TokenError> {
    let read = [AttributeType::Extractable, AttributeType::Sensitive, AttributeType::Sign];
    for attribute in session.get_attributes(key, &read)? {
        match attribute {
            Attribute::Extractable(true) | Attribute::Sensitive(false) => {
                return Err(TokenError::Extractable);
            }
            Attribute::Sign(false) => return Err(TokenError::OtherKind),
            _ => {}
        }
    }
    Ok(())
}

/// `SEQUENCE { r INTEGER, s INTEGER }` of the two numbers side by side.
fn signature_der(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() != POINT_BYTES - 1 {
        return None;
    }
    let (r, s) = raw.split_at(raw.len() / 2);
    let numbers = [integer_der(r), integer_der(s)].concat();
    let len = u8::try_from(numbers.len()).ok()?;
    Some([&[0x30, len][..], &numbers].concat())
}

fn integer_der(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count().min(number.len() - 1);
    let number = &number[zeros..];
    let sign = if number[0] & 0x80 != 0 { &[0][..] } else { &[] }; // it is positive
    let len = u8::try_from(sign.len() + number.len()).unwrap_or(u8::MAX); // at most 33
    [&[0x02, len][..], sign, number].concat()
}

/// The key, as TLS asks for it.
pub(crate) fn for_tls(key: Arc<TokenKey>) -> Arc<dyn SigningKey> {
    Arc::new(ForTls(key))
}

#[derive(Debug, Clone)]
struct ForTls(Arc<TokenKey>);

impl SigningKey for ForTls {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let offered = offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256);
        offered.then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for ForTls {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.0
            .sign(message)
            .map_err(|error| rustls::Error::Other(rustls::OtherError(Arc::new(error))))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_become_asn1() {
        let raw = |r: &[u8], s: &[u8]| {
            let pad = |number: &[u8]| [vec![0; 32 - number.len()], number.to_vec()].concat();
            [pad(r), pad(s)].concat()
        };
        let check = |r: &[u8], s: &[u8]| hex::encode(signature_der(&raw(r, s)).unwrap());
        assert_eq!(check(&[1], &[0x7f]), "300602010102017f");
        assert_eq!(check(&[0x80], &[0x01, 0x00]), "3008020200800202 0100".replace(' ', ""));
        assert_eq!(check(&[], &[0xff; 32]), format!("3026020100022100{}", "ff".repeat(32)));
        assert_eq!(signature_der(&[0; 63]), None);
    }

    #[test]
    fn a_module_that_is_absent_is_named() {
        let uri: KeyUri = "pkcs11:object=a?module-path=/absent/module.so".parse().unwrap();
        let error = TokenKey::find(&uri).unwrap_err();
        assert!(matches!(&error, TokenError::Module { .. }), "{error}");
        assert!(error.to_string().contains("/absent/module.so") && !error.hint().is_empty());
    }

    #[test]
    fn the_last_try_is_left_to_a_person() {
        let check = |state: [bool; 3]| may_show(state[0], state[1], state[2]).err();
        assert!(check([false; 3]).is_none());
        assert!(matches!(check([false, false, true]), Some(TokenError::LastTry)));
        assert!(matches!(check([false, true, true]), Some(TokenError::RefusedBefore)));
        assert!(matches!(check([true, true, true]), Some(TokenError::Locked)));
    }
}

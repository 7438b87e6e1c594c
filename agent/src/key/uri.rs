//! Which key of which token, as a PKCS#11 URI (RFC 7512):
//! `pkcs11:token=NAME;object=LABEL?module-path=/PATH/TO/MODULE.so&pin-source=file:/PATH/TO/PIN`.

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::str::FromStr;

/// The longest URI.
const URI_MAX_BYTES: usize = 4096;

/// Why a text names no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidUri {
    #[error("a PKCS#11 URI begins with \"pkcs11:\"")]
    Scheme,
    #[error("{0:?} is no NAME=VALUE of a PKCS#11 URI")]
    Attribute(String),
    #[error("{0} is not known here, so the URI may mean another key than it would name")]
    Unknown(String),
    #[error("{0} stands there twice")]
    Twice(String),
    #[error("the URI names no key: object=LABEL or id=%HH is missing")]
    NoObject,
    #[error("the URI names no module: ?module-path=/PATH/TO/MODULE.so is missing")]
    NoModule,
    #[error("a PIN does not belong into a URI, which others can read")]
    PinValue,
    #[error("pin-source is the path of a file")]
    PinSource,
}

impl InvalidUri {
    /// What a person can do.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::PinValue | Self::PinSource => {
                "put it into a file that only the agent can read, and name that: pin-source=file:/PATH"
            }
            Self::NoModule => {
                "a TPM's module on Debian: /usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so"
            }
            _ => {
                "for example pkcs11:token=NAME;object=outrigger?module-path=/PATH.so&pin-source=file:/PATH"
            }
        }
    }
}

/// A key in a token. What is absent may be anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyUri {
    pub(crate) token: Option<String>,
    pub(crate) manufacturer: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) serial: Option<String>,
    pub(crate) slot: Option<u64>,
    pub(crate) object: Option<String>,
    pub(crate) id: Option<Vec<u8>>,
    pub(crate) module: PathBuf,
    /// Absent where the token needs none.
    pub(crate) pin_file: Option<PathBuf>,
}

impl FromStr for KeyUri {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Self, InvalidUri> {
        let text = text.trim();
        let rest = text.strip_prefix("pkcs11:").filter(|_| text.len() <= URI_MAX_BYTES);
        let (path, query) = rest
            .ok_or(InvalidUri::Scheme)?
            .split_once('?')
            .unwrap_or((rest.unwrap_or_default(), ""));
        let mut uri = Self::default();
        for attribute in path.split(';').filter(|a| !a.is_empty()) {
            uri.take_path(attribute)?;
        }
        for attribute in query.split('&').filter(|a| !a.is_empty()) {
            uri.take_query(attribute)?;
        }
        match uri {
            Self { object: None, id: None, .. } => Err(InvalidUri::NoObject),
            uri if uri.module.as_os_str().is_empty() => Err(InvalidUri::NoModule),
            uri => Ok(uri),
        }
    }
}

impl KeyUri {
    fn take_path(&mut self, attribute: &str) -> Result<(), InvalidUri> {
        let (name, bytes) = pair(attribute)?;
        let invalid = || InvalidUri::Attribute(attribute.to_owned());
        let word = || String::from_utf8(bytes.clone()).map_err(|_| invalid());
        let place = match name {
            "token" => &mut self.token,
            "manufacturer" => &mut self.manufacturer,
            "model" => &mut self.model,
            "serial" => &mut self.serial,
            "object" => &mut self.object,
            "id" => return set(&mut self.id, name, bytes),
            "slot-id" => {
                let number = word()?.parse().map_err(|_| invalid())?;
                return set(&mut self.slot, name, number);
            }
            "type" if bytes == b"private" => return Ok(()),
            _ => return Err(InvalidUri::Unknown(name.to_owned())),
        };
        set(place, name, word()?)
    }

    fn take_query(&mut self, attribute: &str) -> Result<(), InvalidUri> {
        let (name, bytes) = pair(attribute)?;
        let invalid = || InvalidUri::Attribute(attribute.to_owned());
        let word = String::from_utf8(bytes).map_err(|_| invalid())?;
        match name {
            "module-path" if self.module.as_os_str().is_empty() => self.module = word.into(),
            "pin-source" => {
                let path = word.strip_prefix("file:").unwrap_or(&word);
                let path = path.strip_prefix("//").unwrap_or(path);
                if !path.starts_with('/') {
                    return Err(InvalidUri::PinSource);
                }
                return set(&mut self.pin_file, name, path.into());
            }
            "pin-value" => return Err(InvalidUri::PinValue),
            "module-path" => return Err(InvalidUri::Twice(name.to_owned())),
            _ => return Err(InvalidUri::Unknown(name.to_owned())),
        }
        Ok(())
    }
}

fn set<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), InvalidUri> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(InvalidUri::Twice(name.to_owned())),
    }
}

/// A name, and its value without percent-encoding.
fn pair(attribute: &str) -> Result<(&str, Vec<u8>), InvalidUri> {
    let invalid = || InvalidUri::Attribute(attribute.to_owned());
    let (name, value) = attribute.split_once('=').ok_or_else(invalid)?;
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next(), rest.next()].map(Option::unwrap_or_default);
                let mut decoded = [0];
                hex::decode_to_slice(digits, &mut decoded).map_err(|_| invalid())?;
                decoded[0]
            }
            plain => plain,
        });
    }
    Ok((name, bytes))
}

/// What may stand in a value as it is.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte)
}

fn encoded(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        if is_plain(*byte) {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02X}"); // a String takes everything
        }
    }
    text
}

impl fmt::Display for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slot = self.slot.map(|slot| slot.to_string());
        let path = [
            ("token", &self.token),
            ("manufacturer", &self.manufacturer),
            ("model", &self.model),
            ("serial", &self.serial),
            ("slot-id", &slot),
            ("object", &self.object),
        ];
        let words = path.into_iter().filter_map(|(name, value)| {
            Some(format!("{name}={}", encoded(value.as_ref()?.as_bytes())))
        });
        let id = self.id.iter().map(|id| {
            let digits = id.iter().map(|byte| format!("%{byte:02X}"));
            format!("id={}", digits.collect::<String>())
        });
        let path: Vec<_> = words.chain(id).collect();
        let module = encoded(self.module.to_string_lossy().as_bytes());
        write!(f, "pkcs11:{}?module-path={module}", path.join(";"))?;
        if let Some(pin) = &self.pin_file {
            write!(f, "&pin-source=file:{}", encoded(pin.to_string_lossy().as_bytes()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_and_read_again() {
        for (text, expected) in [
            (
                "pkcs11:token=My%20TPM;object=device?module-path=/usr/lib/m.so&pin-source=file:/etc/pin",
                "pkcs11:token=My%20TPM;object=device?module-path=/usr/lib/m.so&pin-source=file:/etc/pin",
            ),
            (
                "pkcs11:id=%01%fe;type=private?pin-source=file:///etc/pin&module-path=/m.so\n",
                "pkcs11:id=%01%FE?module-path=/m.so&pin-source=file:/etc/pin",
            ),
            (
                "pkcs11:object=%e2%82%ac;slot-id=3;serial=1?module-path=/m.so",
                "pkcs11:serial=1;slot-id=3;object=%E2%82%AC?module-path=/m.so",
            ),
        ] {
            let uri: KeyUri = text.parse().unwrap();
            assert_eq!(uri.to_string(), expected);
            assert_eq!(uri.to_string().parse(), Ok(uri));
        }
    }

    #[test]
    fn what_might_mean_another_key_is_refused() {
        let refused = |text: &str| text.parse::<KeyUri>().unwrap_err();
        assert_eq!(refused("file:/key"), InvalidUri::Scheme);
        assert_eq!(refused("pkcs11:token=a?module-path=/m.so"), InvalidUri::NoObject);
        assert_eq!(refused("pkcs11:object=a"), InvalidUri::NoModule);
        assert_eq!(refused("pkcs11:object=a;object=b"), InvalidUri::Twice("object".into()));
        assert_eq!(refused("pkcs11:colour=a"), InvalidUri::Unknown("colour".into()));
        assert_eq!(refused("pkcs11:type=public"), InvalidUri::Unknown("type".into()));
        assert_eq!(refused("pkcs11:object"), InvalidUri::Attribute("object".into()));
        assert_eq!(refused("pkcs11:object=%4"), InvalidUri::Attribute("object=%4".into()));
        assert_eq!(refused("pkcs11:slot-id=x"), InvalidUri::Attribute("slot-id=x".into()));
        let pin = "pkcs11:object=a?module-path=/m.so&pin-value=1234";
        assert_eq!(refused(pin), InvalidUri::PinValue);
        assert!(!refused(pin).to_string().contains("1234"));
        let relative = "pkcs11:object=a?module-path=/m.so&pin-source=pin";
        assert_eq!(refused(relative), InvalidUri::PinSource);
    }
}

//! What binds the end of a sign-in to its beginning: `state` and `nonce`, both made from a secret of this
//! process, so that nothing is kept of a sign-in that has begun.

use ring::{digest, hmac};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{decoded, encoded};

/// How long a sign-in may take, in seconds.
pub const SIGN_IN_MAX_S: i64 = 600;
/// The only path on loopback that a browser is sent to.
pub const CALLBACK_PATH: &str = "/callback";

const TIME_BYTES: usize = 8;
const RANDOM_BYTES: usize = 16;
const SEAL_BYTES: usize = 32;
const STATE_BYTES: usize = TIME_BYTES + RANDOM_BYTES + SEAL_BYTES;
/// The longest port is five digits, the longest host `127.0.0.1`.
const REDIRECT_MAX_BYTES: usize = 64;

/// Where a browser is sent in the end: a port on loopback of whoever signs in (RFC 8252, 7.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect(String);

/// The address is not one that a browser may be sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a browser is sent to http://127.0.0.1:PORT/callback or http://[::1]:PORT/callback, nowhere else"
)]
pub struct InvalidRedirect;

impl FromStr for Redirect {
    type Err = InvalidRedirect;
    fn from_str(text: &str) -> Result<Self, InvalidRedirect> {
        let rest = text.strip_prefix("http://").filter(|_| text.len() <= REDIRECT_MAX_BYTES);
        let authority = rest.and_then(|rest| rest.strip_suffix(CALLBACK_PATH));
        let (host, port) = authority.and_then(|a| a.rsplit_once(':')).ok_or(InvalidRedirect)?;
        let is_port =
            port.parse::<u16>().is_ok_and(|number| number > 0 && port == number.to_string());
        match is_port && matches!(host, "127.0.0.1" | "[::1]") {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidRedirect),
        }
    }
}

impl Redirect {
    /// The port on one of the two addresses.
    pub fn on(ip: IpAddr, port: u16) -> Self {
        let host = if ip.is_ipv6() { "[::1]" } else { "127.0.0.1" };
        Self(format!("http://{host}:{port}{CALLBACK_PATH}"))
    }

    /// As a URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What only whoever began a sign-in knows (RFC 7636).
#[derive(Clone)]
pub struct Verifier(String);

/// A text is no verifier, or no challenge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a code_verifier has 43 to 128 characters, and its code_challenge is their SHA-256 in base64url"
)]
pub struct InvalidProof;

impl Verifier {
    /// One of 256 random bits.
    pub fn from_entropy(entropy: [u8; 32]) -> Self {
        Self(encoded(&entropy))
    }

    /// What may be shown before the end: its SHA-256.
    pub fn challenge(&self) -> Challenge {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, self.0.as_bytes()).as_ref());
        Challenge(hash)
    }

    /// As it is sent in the end.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Verifier {
    type Err = InvalidProof;
    fn from_str(text: &str) -> Result<Self, InvalidProof> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        match (43..=128).contains(&text.len()) && text.bytes().all(is_plain) {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidProof),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(hidden)")
    }
}

/// The SHA-256 of a [`Verifier`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge([u8; 32]);

impl FromStr for Challenge {
    type Err = InvalidProof;
    fn from_str(text: &str) -> Result<Self, InvalidProof> {
        let bytes = decoded(text).ok_or(InvalidProof)?;
        bytes.try_into().map(Self).map_err(|_| InvalidProof)
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encoded(&self.0))
    }
}

/// A sign-in that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Goes to the provider and comes back through the browser.
    pub state: String,
    /// Has to stand in the ID token.
    pub nonce: String,
}

/// Why the end of a sign-in does not fit any beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Made by somebody else, by this cloud before it was restarted, or for another address or verifier.
    #[error("this cloud has not begun this sign-in")]
    Unknown,
    /// Its time is over.
    #[error("this sign-in took more than {} minutes", SIGN_IN_MAX_S / 60)]
    Expired,
}

/// Makes tickets, and knows its own.
pub struct Tickets(hmac::Key);

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets(hidden)")
    }
}

impl Tickets {
    /// With a secret that nobody else has.
    pub fn from_entropy(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Begins a sign-in.
    pub fn begin(
        &self,
        (redirect, challenge): (&Redirect, &Challenge),
        entropy: [u8; RANDOM_BYTES],
        now_s: i64,
    ) -> Begun {
        let mut state = [now_s.to_be_bytes().as_slice(), entropy.as_slice()].concat();
        let said = bound(&state, redirect, challenge);
        let nonce = encoded(hmac::sign(&self.0, &labelled(b"nonce", &said)).as_ref());
        state.extend(hmac::sign(&self.0, &labelled(b"state", &said)).as_ref());
        Begun { state: encoded(&state), nonce }
    }

    /// The nonce of a sign-in that ends for the same address, and for whoever knows the verifier.
    ///
    /// # Errors
    /// [`TicketError`].
    pub fn end(
        &self,
        state: &str,
        (redirect, verifier): (&Redirect, &Verifier),
        now_s: i64,
    ) -> Result<String, TicketError> {
        let state = decoded(state).filter(|state| state.len() == STATE_BYTES);
        let state = state.ok_or(TicketError::Unknown)?;
        let (open, seal) = state.split_at(TIME_BYTES + RANDOM_BYTES);
        let said = bound(open, redirect, &verifier.challenge());
        hmac::verify(&self.0, &labelled(b"state", &said), seal)
            .map_err(|_| TicketError::Unknown)?;
        let mut at_s = [0; TIME_BYTES];
        at_s.copy_from_slice(&open[..TIME_BYTES]);
        if now_s.saturating_sub(i64::from_be_bytes(at_s)) > SIGN_IN_MAX_S {
            return Err(TicketError::Expired);
        }
        Ok(encoded(hmac::sign(&self.0, &labelled(b"nonce", &said)).as_ref()))
    }
}

/// Of the parts only the last has no fixed length.
fn bound(open: &[u8], redirect: &Redirect, challenge: &Challenge) -> Vec<u8> {
    [open, challenge.0.as_slice(), redirect.0.as_bytes()].concat()
}

fn labelled(label: &[u8; 5], said: &[u8]) -> Vec<u8> {
    [label.as_slice(), said].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_sent_to_loopback_alone() {
        for good in ["http://127.0.0.1:1/callback", "http://[::1]:65535/callback"] {
            assert_eq!(good.parse::<Redirect>().unwrap().as_str(), good);
        }
        for bad in [
            "https://127.0.0.1:1/callback",
            "http://127.0.0.1/callback",
            "http://127.0.0.1:0/callback",
            "http://127.0.0.1:01/callback",
            "http://127.0.0.1:+1/callback",
            "http://127.0.0.1:65536/callback",
            "http://localhost:1/callback",
            "http://127.0.0.2:1/callback",
            "http://127.0.0.1:1@evil.example:1/callback",
            "http://evil.example/?127.0.0.1:1/callback",
            "http://127.0.0.1:1/callback?x",
            "http://127.0.0.1:1/callback#",
            "http://127.0.0.1:1/other",
            "",
        ] {
            assert_eq!(bad.parse::<Redirect>(), Err(InvalidRedirect), "{bad}");
        }
        let on = |ip: &str| Redirect::on(ip.parse().unwrap(), 7);
        assert_eq!(on("127.0.0.1").as_str().parse(), Ok(on("127.0.0.1")));
        assert_eq!(on("::1").as_str().parse(), Ok(on("::1")));
    }

    /// The example of RFC 7636, appendix B.
    #[test]
    fn the_challenge_is_that_of_the_standard() {
        let verifier: Verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".parse().unwrap();
        let challenge = verifier.challenge();
        assert_eq!(challenge.to_string(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert_eq!(challenge.to_string().parse(), Ok(challenge));
        for bad in ["short".to_owned(), "a".repeat(129), "ä".repeat(30), " ".repeat(50)] {
            assert!(bad.parse::<Verifier>().is_err(), "{bad}");
        }
        assert!("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-c".parse::<Challenge>().is_err());
        assert!(!format!("{verifier:?}").contains("dBj"));
    }

    #[test]
    fn an_end_has_to_fit_its_beginning() {
        let tickets = Tickets::from_entropy(&[1; 32]);
        let redirect: Redirect = "http://127.0.0.1:9/callback".parse().unwrap();
        let other: Redirect = "http://127.0.0.1:8/callback".parse().unwrap();
        let (verifier, wrong) = (Verifier::from_entropy([2; 32]), Verifier::from_entropy([3; 32]));
        let begin = |entropy| tickets.begin((&redirect, &verifier.challenge()), entropy, 1000);
        let begun = begin([4; 16]);
        let end = |state: &str, now_s| tickets.end(state, (&redirect, &verifier), now_s);
        assert_eq!(end(&begun.state, 1000), Ok(begun.nonce.clone()));
        assert_eq!(end(&begun.state, 1600), Ok(begun.nonce.clone()));
        assert_eq!(end(&begun.state, 1601), Err(TicketError::Expired));
        let unknown = Err(TicketError::Unknown);
        assert_eq!(tickets.end(&begun.state, (&other, &verifier), 1000), unknown);
        assert_eq!(tickets.end(&begun.state, (&redirect, &wrong), 1000), unknown);
        let restarted = Tickets::from_entropy(&[5; 32]);
        assert_eq!(restarted.end(&begun.state, (&redirect, &verifier), 1000), unknown);
        let bytes = decoded(&begun.state).unwrap();
        for at in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            assert_eq!(end(&encoded(&forged), 1000), unknown, "byte {at}");
        }
        for bad in ["", "!", &begun.nonce, &begun.state[1..], &format!("{}AA", begun.state)] {
            assert_eq!(end(bad, 1000), unknown, "{bad}");
        }
        let next = begin([6; 16]);
        assert!(next.state != begun.state && next.nonce != begun.nonce);
        assert!(!format!("{tickets:?}").contains('1'));
    }
}

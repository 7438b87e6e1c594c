//! A provider in a test: its keys sign what no honest one would.
#![allow(clippy::disallowed_types)] // ECDSA and PSS are random

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use ring::{hmac, rsa};
use serde_json::{Map, Value, json};

use super::id_token::{Claims, Expected, TOKEN_MAX_BYTES, TokenError, verify};
use super::jwk::{KEYS_MAX, KeySet, KeySetError};
use super::provider::{
    ClientAuth, DISCOVERY_MAX_BYTES, DiscoveryError, Issuer, Provider, may_be_opened,
};
use super::roles::{ClaimPath, NoRole, Rule, Rules};
use super::ticket::{Tickets, Verifier};
use super::{decoded, encoded};
use crate::access::Role;

const ISSUER: &str = "https://id.example";
const NOW_S: i64 = 1_000_100;
const EXPECTED: Expected<'_> =
    Expected { issuer: ISSUER, client_id: "outrigger", nonce: "n", now_s: NOW_S };

fn rsa_key() -> RsaKeyPair {
    RsaKeyPair::from_der(include_bytes!("tests/rsa-2048.der")).unwrap()
}

fn ec_key(algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    let rng = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &rng).unwrap()
}

/// A private key of the provider.
enum Key {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
}

impl Key {
    fn rsa() -> Self {
        Self::Rsa(Box::new(rsa_key()))
    }

    fn p256() -> Self {
        Self::Ec(ec_key(&ECDSA_P256_SHA256_FIXED_SIGNING), "P-256")
    }

    fn p384() -> Self {
        Self::Ec(ec_key(&ECDSA_P384_SHA384_FIXED_SIGNING), "P-384")
    }

    fn ed25519(seed: u8) -> Self {
        Self::Ed(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    fn jwk(&self) -> Value {
        match self {
            Self::Rsa(key) => {
                let parts: rsa::PublicKeyComponents<Vec<u8>> = key.public().into();
                json!({ "kty": "RSA", "n": encoded(&parts.n), "e": encoded(&parts.e) })
            }
            Self::Ec(key, curve) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({ "kty": "EC", "crv": curve, "x": encoded(x), "y": encoded(y) })
            }
            Self::Ed(key) => {
                let x = encoded(key.public_key().as_ref());
                json!({ "kty": "OKP", "crv": "Ed25519", "x": x })
            }
        }
    }

    fn with(&self, more: &Value) -> Value {
        let mut jwk = self.jwk();
        let fields = more.as_object().unwrap().clone();
        jwk.as_object_mut().unwrap().extend(fields);
        jwk
    }

    fn sign(&self, message: &[u8], algorithm: &str) -> Vec<u8> {
        let rng = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let encoding: &dyn RsaEncoding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(encoding, &rng, message, &mut signature).unwrap();
                signature
            }
            Self::Ec(key, _) => key.sign(&rng, message).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let algorithm = header["alg"].as_str().unwrap_or_default();
        format!("{signed}.{}", encoded(&self.sign(signed.as_bytes(), algorithm)))
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()))
}

fn key_set(keys: &[Value]) -> KeySet {
    KeySet::from_json(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": "outrigger", "sub": "ada", "nonce": "n", "iat": NOW_S - 10,
            "exp": NOW_S + 300 })
}

/// The claims with others in their place; `null` takes one away.
fn but(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

#[test]
fn each_algorithm_is_believed_by_a_key_of_its_kind_alone() {
    let keys = [
        (Key::rsa(), &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"][..]),
        (Key::p256(), &["ES256"]),
        (Key::p384(), &["ES384"]),
        (Key::ed25519(1), &["EdDSA", "Ed25519"]),
    ];
    let everybody = key_set(&keys.iter().map(|(key, _)| key.jwk()).collect::<Vec<_>>());
    assert_eq!(everybody.len(), 4);
    for (key, own) in &keys {
        let alone = key_set(&[key.jwk()]);
        for (_, algorithms) in &keys {
            for algorithm in *algorithms {
                let token = key.token(&json!({ "alg": algorithm }), &claims());
                let verified = verify(&token, &alone, &EXPECTED);
                if own.contains(algorithm) {
                    assert_eq!(verified.unwrap().subject, "ada", "{algorithm}");
                    assert!(verify(&token, &everybody, &EXPECTED).is_ok(), "{algorithm}");
                } else {
                    assert_eq!(verified, Err(TokenError::UnknownKey), "{algorithm}");
                    let error = verify(&token, &everybody, &EXPECTED).unwrap_err();
                    assert_eq!(error, TokenError::Signature, "{algorithm}");
                }
            }
        }
    }
}

#[test]
fn no_token_chooses_how_it_is_believed() {
    let key = Key::rsa();
    let keys = key_set(&[key.jwk()]);
    let refused = |token: &str| verify(token, &keys, &EXPECTED).unwrap_err();
    for algorithm in ["none", "None", "", "HS256", "HS384", "HS512", "ES512", "ES256K", "rs256"] {
        let signed = unsigned(&json!({ "alg": algorithm }), &claims());
        // The public key as a secret, as anybody knows it.
        let parts: rsa::PublicKeyComponents<Vec<u8>> = rsa_key().public().into();
        let secrets = [parts.n.clone(), key.jwk().to_string().into_bytes()];
        let macs = secrets.map(|secret| {
            let secret = hmac::Key::new(hmac::HMAC_SHA256, &secret);
            hmac::sign(&secret, signed.as_bytes()).as_ref().to_vec()
        });
        for signature in macs.into_iter().chain([Vec::new(), key.sign(signed.as_bytes(), "RS256")])
        {
            let error = refused(&format!("{signed}.{}", encoded(&signature)));
            assert!(matches!(error, TokenError::Algorithm(_)), "{algorithm}: {error}");
        }
    }
    let own = Key::ed25519(9);
    let brought = json!({ "alg": "EdDSA", "jwk": own.jwk(), "jku": "https://evil.example/keys" });
    assert_eq!(refused(&own.token(&brought, &claims())), TokenError::UnknownKey);
    for critical in [json!(["exp"]), json!([]), json!("b64")] {
        let header = json!({ "alg": "RS256", "crit": critical, "b64": false });
        assert_eq!(refused(&key.token(&header, &claims())), TokenError::Critical);
    }
    let twice = format!(
        "{}.{}",
        encoded(br#"{"alg":"none","alg":"RS256"}"#),
        encoded(claims().to_string().as_bytes())
    );
    let signature = encoded(&key.sign(twice.as_bytes(), "RS256"));
    assert_eq!(refused(&format!("{twice}.{signature}")), TokenError::Form);
}

#[test]
fn every_part_of_a_token_is_signed() {
    for (key, algorithm) in
        [(Key::rsa(), "RS256"), (Key::p256(), "ES256"), (Key::ed25519(1), "EdDSA")]
    {
        let keys = key_set(&[key.jwk()]);
        let token = key.token(&json!({ "alg": algorithm }), &claims());
        let parts: Vec<Vec<u8>> = token.split('.').map(|part| decoded(part).unwrap()).collect();
        for (at, part) in parts.iter().enumerate() {
            for byte in 0..part.len() {
                let mut other = parts.clone();
                other[at][byte] ^= 1;
                let other: Vec<_> = other.iter().map(|part| encoded(part)).collect();
                assert!(verify(&other.join("."), &keys, &EXPECTED).is_err(), "{at} {byte}");
            }
        }
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let stranger = but(&json!({ "sub": "eve" }));
        let forged = unsigned(&json!({ "alg": algorithm }), &stranger);
        for (token, error) in [
            (format!("{forged}.{signature}"), TokenError::Signature),
            (format!("{signed}."), TokenError::Signature),
            (format!("{token}="), TokenError::Form),
            (format!("{token}.{signature}"), TokenError::Form),
            (signed.to_owned(), TokenError::Form),
            (String::new(), TokenError::Form),
            ("..".to_owned(), TokenError::Form),
            ("a".repeat(TOKEN_MAX_BYTES + 1), TokenError::TooLarge),
        ] {
            assert_eq!(verify(&token, &keys, &EXPECTED), Err(error), "{token}");
        }
    }
}

#[test]
fn a_key_is_only_what_its_provider_says_of_it() {
    let (key, other) = (Key::ed25519(1), Key::ed25519(2));
    let (named, unnamed) = (json!({ "alg": "EdDSA", "kid": "a" }), json!({ "alg": "EdDSA" }));
    let unknown = Err(TokenError::UnknownKey);
    for (what, keys, header, expected) in [
        ("its own id", vec![key.with(&json!({ "kid": "a" }))], &named, Ok(())),
        ("another id", vec![key.with(&json!({ "kid": "b" }))], &named, unknown.clone()),
        ("no id, and the token has one", vec![key.jwk()], &named, unknown.clone()),
        ("each is tried", vec![other.jwk(), key.jwk()], &unnamed, Ok(())),
        ("each is tried", vec![other.with(&json!({ "kid": "b" })), key.jwk()], &unnamed, Ok(())),
        ("none of them", vec![other.jwk()], &unnamed, Err(TokenError::Signature)),
        (
            "two of one id",
            vec![other.with(&json!({ "kid": "a" })), key.with(&json!({ "kid": "a" }))],
            &named,
            Ok(()),
        ),
        ("to sign", vec![key.with(&json!({ "use": "sig", "alg": "EdDSA" }))], &unnamed, Ok(())),
        ("to verify", vec![key.with(&json!({ "key_ops": ["verify"] }))], &unnamed, Ok(())),
        ("to encrypt", vec![key.with(&json!({ "use": "enc" }))], &unnamed, unknown.clone()),
        (
            "not to verify",
            vec![key.with(&json!({ "key_ops": ["sign"] }))],
            &unnamed,
            unknown.clone(),
        ),
        (
            "for another algorithm",
            vec![key.with(&json!({ "alg": "RS256" }))],
            &unnamed,
            unknown.clone(),
        ),
        (
            "for none that is known",
            vec![key.with(&json!({ "alg": "X" }))],
            &unnamed,
            unknown.clone(),
        ),
        ("of another kind", vec![key.with(&json!({ "kty": "EC" }))], &unnamed, unknown.clone()),
        ("too short", vec![key.with(&json!({ "x": "AAAA" }))], &unnamed, unknown.clone()),
        ("nothing", vec![], &unnamed, unknown),
    ] {
        let token = key.token(header, &claims());
        let verified = verify(&token, &key_set(&keys), &EXPECTED).map(drop);
        assert_eq!(verified, expected, "{what}");
    }
    let rsa = Key::rsa();
    let only = key_set(&[rsa.with(&json!({ "alg": "RS256" }))]);
    let token = rsa.token(&json!({ "alg": "PS256" }), &claims());
    assert_eq!(verify(&token, &only, &EXPECTED), Err(TokenError::UnknownKey));
    assert!(TokenError::UnknownKey.may_be_newer_key() && !TokenError::Issuer.may_be_newer_key());
}

#[test]
fn a_set_of_keys_is_bounded_and_strange_ones_in_it_are_left_out() {
    let strange = [
        json!({ "kty": "oct", "k": "AAAA" }),
        json!({}),
        json!(7),
        json!({ "kty": "EC",
        "crv": "P-521" }),
        json!({ "kty": "RSA", "n": "", "e": "AQAB" }),
    ];
    assert!(key_set(&strange).is_empty());
    let set = |bytes: &str| KeySet::from_json(bytes.as_bytes());
    assert!(matches!(set("{}"), Err(KeySetError::Json(_))));
    assert!(matches!(set(&" ".repeat(300 << 10)), Err(KeySetError::TooLarge)));
    let many = json!({ "keys": vec![Key::ed25519(1).jwk(); KEYS_MAX + 1] });
    assert!(matches!(set(&many.to_string()), Err(KeySetError::TooMany)));
    let mut zeros = Key::rsa().jwk();
    let n = decoded(zeros["n"].as_str().unwrap()).unwrap();
    zeros["n"] = encoded(&[&[0], &n[..]].concat()).into();
    let token = Key::rsa().token(&json!({ "alg": "RS256" }), &claims());
    assert!(verify(&token, &key_set(&[zeros]), &EXPECTED).is_ok(), "as some providers write it");
}

/// The signature holds: only the key is too small.
#[test]
fn keys_below_2048_bits_are_refused() {
    let jwk = json!({ "kty": "RSA", "kid": "small", "e": "AQAB",
                      "n": include_str!("tests/rsa-1024.modulus") });
    let token = include_str!("tests/rsa-1024.jwt");
    assert_eq!(verify(token, &key_set(&[jwk]), &EXPECTED), Err(TokenError::Signature));
}

#[test]
fn claims_are_checked_one_by_one() {
    use TokenError as E;
    let key = Key::ed25519(1);
    let keys = key_set(&[key.jwk()]);
    for (changes, expected) in [
        (json!({}), Ok(())),
        (json!({ "iss": "https://id.example/" }), Err(E::Issuer)),
        (json!({ "iss": null }), Err(E::Issuer)),
        (json!({ "iss": ["https://id.example"] }), Err(E::Issuer)),
        (json!({ "aud": "other" }), Err(E::Audience)),
        (json!({ "aud": null }), Err(E::Claim("aud"))),
        (json!({ "aud": {} }), Err(E::Claim("aud"))),
        (json!({ "aud": ["outrigger", 7] }), Err(E::Claim("aud"))),
        (json!({ "aud": [] }), Err(E::Audience)),
        (json!({ "aud": ["outrigger"] }), Ok(())),
        (json!({ "aud": ["outrigger", "other"] }), Err(E::Audience)),
        (json!({ "aud": ["outrigger", "other"], "azp": "outrigger" }), Ok(())),
        (json!({ "aud": ["outrigger", "other"], "azp": "other" }), Err(E::Audience)),
        (json!({ "aud": ["other", "third"], "azp": "outrigger" }), Err(E::Audience)),
        (json!({ "azp": "other" }), Err(E::Audience)),
        (json!({ "azp": 7 }), Err(E::Audience)),
        (json!({ "azp": "outrigger" }), Ok(())),
        (json!({ "nonce": "m" }), Err(E::Nonce)),
        (json!({ "nonce": null }), Err(E::Nonce)),
        (json!({ "nonce": "" }), Err(E::Nonce)),
        (json!({ "nonce": "nn" }), Err(E::Nonce)),
        (json!({ "exp": null }), Err(E::Claim("exp"))),
        (json!({ "exp": "1000300" }), Err(E::Claim("exp"))),
        (json!({ "exp": NOW_S - 59 }), Ok(())),
        (json!({ "exp": NOW_S - 60 }), Err(E::Expired)),
        (json!({ "exp": 1e300 }), Ok(())),
        (json!({ "exp": -1e300 }), Err(E::Expired)),
        (json!({ "iat": null }), Err(E::Claim("iat"))),
        (json!({ "iat": NOW_S + 60 }), Ok(())),
        (json!({ "iat": NOW_S + 61 }), Err(E::NotYet)),
        (json!({ "iat": NOW_S - 660 }), Ok(())),
        (json!({ "iat": NOW_S - 661 }), Err(E::Stale)),
        (json!({ "iat": 1_000_090.5 }), Ok(())),
        (json!({ "nbf": NOW_S + 60 }), Ok(())),
        (json!({ "nbf": NOW_S + 61 }), Err(E::NotYet)),
        (json!({ "nbf": true }), Err(E::Claim("nbf"))),
        (json!({ "sub": null }), Err(E::Claim("sub"))),
        (json!({ "sub": "" }), Err(E::Claim("sub"))),
        (json!({ "sub": 7 }), Err(E::Claim("sub"))),
        (json!({ "sub": "a".repeat(255) }), Ok(())),
        (json!({ "sub": "a".repeat(256) }), Err(E::Claim("sub"))),
        (json!({ "sub": "a\nb" }), Err(E::Claim("sub"))),
        (json!({ "sub": " ada" }), Err(E::Claim("sub"))),
    ] {
        let token = key.token(&json!({ "alg": "EdDSA" }), &but(&changes));
        let verified = verify(&token, &keys, &EXPECTED).map(drop);
        assert_eq!(verified, expected, "{changes}");
    }
    let list = key.token(&json!({ "alg": "EdDSA" }), &json!([claims()]));
    assert_eq!(verify(&list, &keys, &EXPECTED), Err(TokenError::Form));
}

fn document() -> Value {
    json!({
        "issuer": ISSUER,
        "authorization_endpoint": "https://id.example/auth",
        "token_endpoint": "https://id.example/token",
        "jwks_uri": "https://keys.example/jwks",
    })
}

#[test]
fn an_issuer_is_a_url_of_https_or_on_loopback() {
    for good in [
        "https://id.example",
        "https://id.example:8443/realms/ml/",
        "http://127.0.0.1:9",
        "http://[::1]:9/x",
        "http://localhost:9",
    ] {
        assert_eq!(good.parse::<Issuer>().unwrap().to_string(), good);
    }
    for bad in [
        "",
        "id.example",
        "http://id.example",
        "http://127.0.0.1.evil.example",
        "http://localhost@evil.example",
        "https://ada:secret@id.example",
        "https://id.example?x",
        "https://id.example#x",
        "https://id.example /",
        "https:///x",
        "ftp://id.example",
    ] {
        assert!(bad.parse::<Issuer>().is_err(), "{bad}");
        assert_eq!(may_be_opened(bad), bad == "https://id.example?x", "{bad}");
    }
    let issuer: Issuer = "https://id.example/realms/ml/".parse().unwrap();
    let url = "https://id.example/realms/ml/.well-known/openid-configuration";
    assert_eq!(issuer.discovery_url(), url);
}

#[test]
fn a_provider_that_is_another_or_not_safe_is_not_used() {
    let issuer: Issuer = ISSUER.parse().unwrap();
    let read = |document: &Value, has_secret| {
        Provider::from_json(document.to_string().as_bytes(), &issuer, has_secret)
    };
    let with = |name: &str, value: Value| {
        let mut document = document();
        document[name] = value;
        document
    };
    let provider = read(&document(), true).unwrap();
    assert_eq!((provider.client_auth, provider.names_itself), (ClientAuth::Basic, false));
    assert_eq!(read(&document(), false).unwrap().client_auth, ClientAuth::None);
    for (name, value, error) in [
        ("issuer", json!("https://id.example/"), "the provider calls itself"),
        ("token_endpoint", json!("http://id.example/token"), "token_endpoint is no URL"),
        ("token_endpoint", json!("http://127.0.0.1/token"), "token_endpoint is no URL"),
        ("jwks_uri", json!("file:///etc/keys"), "jwks_uri is no URL"),
        ("userinfo_endpoint", json!("//id.example"), "userinfo_endpoint is no URL"),
        ("authorization_endpoint", json!("javascript:alert(1)"), "is no URL"),
        ("response_types_supported", json!(["id_token"]), "does not know the authorization"),
        ("code_challenge_methods_supported", json!(["plain"]), "does not know PKCE"),
        (
            "token_endpoint_auth_methods_supported",
            json!(["tls_client_auth"]),
            "does not know client_secret",
        ),
        ("token_endpoint", Value::Null, "cannot be read"),
    ] {
        let found = read(&with(name, value), true).unwrap_err().to_string();
        assert!(found.contains(error), "{found}");
    }
    let post = with("token_endpoint_auth_methods_supported", json!(["client_secret_post", "none"]));
    assert_eq!(read(&post, true).unwrap().client_auth, ClientAuth::Post);
    let large = vec![b' '; DISCOVERY_MAX_BYTES + 1];
    assert!(matches!(Provider::from_json(&large, &issuer, true), Err(DiscoveryError::TooLarge)));
    let named = with("authorization_response_iss_parameter_supported", json!(true));
    let named = read(&named, true).unwrap();
    let answered = |provider: &Provider, iss| provider.may_have_answered(&issuer, iss);
    assert!(answered(&named, Some(ISSUER)) && !answered(&named, None));
    assert!(answered(&provider, None) && answered(&provider, Some(ISSUER)));
    assert!(!answered(&named, Some("https://evil.example")));
    assert!(!answered(&provider, Some("https://evil.example")));
}

#[test]
fn what_a_provider_is_asked() {
    let issuer: Issuer = ISSUER.parse().unwrap();
    let mut described = document();
    described["authorization_endpoint"] = json!("https://id.example/auth?tenant=1");
    let read = |has_secret| {
        Provider::from_json(described.to_string().as_bytes(), &issuer, has_secret).unwrap()
    };
    let redirect = "http://127.0.0.1:9/callback".parse().unwrap();
    let verifier = Verifier::from_entropy([2; 32]);
    let ends = (&redirect, &verifier.challenge());
    let begun = Tickets::from_entropy(&[1; 32]).begin(ends, [3; 16], 5);
    let provider = read(true);
    let url = provider.authorization_url(("out rigger", "openid email"), ends, &begun);
    let query = url.strip_prefix("https://id.example/auth?tenant=1&").unwrap();
    let pairs: Vec<(String, String)> =
        form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let challenge = verifier.challenge().to_string();
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "out rigger"),
        ("redirect_uri", "http://127.0.0.1:9/callback"),
        ("scope", "openid email"),
        ("state", &begun.state),
        ("nonce", &begun.nonce),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ] {
        assert!(pairs.contains(&(name.to_owned(), value.to_owned())), "{name}: {url}");
    }
    let request = |provider: &Provider| {
        provider.token_request("c&d", (&redirect, &verifier), ("out:rigger", "s c+t"))
    };
    let (form, header) = request(&provider);
    assert!(form.contains("code=c%26d") && !form.contains("client"), "{form}");
    let header = header.unwrap();
    let header = STANDARD.decode(header.strip_prefix("Basic ").unwrap()).unwrap();
    assert_eq!(header, b"out%3Arigger:s+c%2Bt");
    let (form, header) = request(&read(false));
    assert!(form.ends_with("&client_id=out%3Arigger") && header.is_none(), "{form}");
    let post = Provider { client_auth: ClientAuth::Post, ..provider };
    assert!(request(&post).0.ends_with("client_id=out%3Arigger&client_secret=s+c%2Bt"));
}

fn said(all: Value) -> Claims {
    let Value::Object(all) = all else { unreachable!() };
    Claims { subject: "ada".into(), all }
}

#[test]
fn the_first_rule_that_fits_gives_the_role() {
    let rules = |claim: &str, rules: &[&str]| Rules {
        claim: claim.parse().unwrap(),
        rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
    };
    let by_group = rules("groups", &["admin=ml-admins", "operator=ml ops", "operator=night,shift"]);
    let for_all = rules("groups", &["admin=ml-admins", "viewer=*"]);
    let nested = rules("/realm_access/ro~1les", &["signer=sign"]);
    let by_mail = rules("email", &["admin=ada@example.com"]);
    let groups = |groups: Value| json!({ "groups": groups });
    for (rules, claims, expected) in [
        (&by_group, groups(json!(["x", "ml ops"])), Ok(Role::Operator)),
        (&by_group, groups(json!(["ml ops", "ml-admins"])), Ok(Role::Admin)),
        (&by_group, groups(json!("night,shift")), Ok(Role::Operator)),
        (&by_group, groups(json!(["ml"])), Err(NoRole::NoneFits)),
        (&by_group, groups(json!(["*"])), Err(NoRole::NoneFits)),
        (&by_group, groups(json!([7, {}])), Err(NoRole::NoneFits)),
        (&by_group, groups(json!({ "ml-admins": true })), Err(NoRole::NoneFits)),
        (&by_group, json!({}), Err(NoRole::NotTold)),
        (&for_all, json!({}), Ok(Role::Viewer)),
        (&for_all, groups(json!(["ml-admins"])), Ok(Role::Admin)),
        (&nested, json!({ "realm_access": { "ro/les": ["sign"] } }), Ok(Role::Signer)),
        (&nested, json!({ "/realm_access/ro~1les": "sign" }), Err(NoRole::NotTold)),
        (&by_mail, json!({ "email": "ada@example.com", "email_verified": true }), Ok(Role::Admin)),
        (&by_mail, json!({ "email": "ada@example.com" }), Err(NoRole::NotTold)),
        (
            &by_mail,
            json!({ "email": "ada@example.com", "email_verified": false }),
            Err(NoRole::NoneFits),
        ),
        (
            &by_mail,
            json!({ "email": "ada@example.com", "email_verified": "true" }),
            Err(NoRole::NoneFits),
        ),
    ] {
        assert_eq!(rules.role(&said(claims.clone())), expected, "{claims}");
    }
    let lacks = |rules: &Rules, claims| rules.lack(&said(claims));
    assert!(lacks(&by_group, json!({})) && !lacks(&by_group, groups(json!([]))));
    assert!(lacks(&for_all, json!({})), "an admin may be among them");
    assert!(!lacks(&rules("groups", &["viewer=*"]), json!({})), "nobody is asked in vain");
    assert!(lacks(&by_mail, json!({ "email": "ada@example.com" })));
    for bad in ["", "admin", "admin=", "root=x", "client=x", "=x"] {
        assert!(bad.parse::<Rule>().is_err(), "{bad}");
    }
    assert_eq!(" admin = a=b ".parse::<Rule>().unwrap().to_string(), "admin=a=b");
    for bad in ["", "/", "a\nb"] {
        assert!(bad.parse::<ClaimPath>().is_err(), "{bad:?}");
    }
}

#[test]
fn a_person_has_a_name_that_is_one_line() {
    for (claims, name) in [
        (
            json!({ "email": "a@b.c", "email_verified": true, "preferred_username": "al" }),
            Some("a@b.c"),
        ),
        (json!({ "email": "a@b.c", "preferred_username": "al" }), Some("al")),
        (json!({ "preferred_username": "a\u{202e}l" }), None),
        (json!({ "preferred_username": "a\nl" }), None),
        (json!({ "preferred_username": "" }), None),
        (json!({ "preferred_username": "a".repeat(129) }), None),
        (json!({ "preferred_username": 7 }), None),
        (json!({}), None),
    ] {
        assert_eq!(said(claims.clone()).name(), name, "{claims}");
    }
    let nameless = |subject: &str| Claims { subject: subject.into(), all: Map::new() }.nameless();
    assert_eq!(nameless("ada"), "ada");
    assert_eq!(nameless(&"a".repeat(99)), "a".repeat(32));
    assert_eq!(nameless("\u{200b}"), "somebody");
}

#[test]
fn userinfo_counts_for_the_same_person_alone() {
    let all = |subject: &str| {
        let Value::Object(all) = json!({ "sub": subject, "groups": "g" }) else { unreachable!() };
        all
    };
    let token = said(json!({}));
    assert_eq!(token.of_userinfo(all("ada")).unwrap().all["groups"], "g");
    assert_eq!(token.of_userinfo(all("eve")), None);
    assert_eq!(token.of_userinfo(Map::new()), None);
}

//! Whole sign-ins with a provider of a few lines, which says what a test wants it to say.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fleet::sign_in::ticket::SIGN_IN_MAX_S;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

use super::*;

/// What a provider does.
struct World {
    issuer: String,
    /// Claims beside those that always stand in the token; `null` takes one away.
    claims: Mutex<Value>,
    userinfo: Mutex<Value>,
    /// The answer of the token endpoint, where it is none.
    refusal: Mutex<Option<(u16, Value)>>,
    /// Fields of its description that are otherwise.
    description: Mutex<Value>,
    /// The seed of its key, and of the one that it signs with.
    key: AtomicU8,
    signer: AtomicU8,
    fetched_keys: AtomicUsize,
    tokens: AtomicUsize,
    nonce: Mutex<String>,
}

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl World {
    fn start() -> Arc<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let world = Arc::new(Self {
            issuer: format!("http://{}", listener.local_addr().unwrap()),
            claims: Mutex::new(json!({ "groups": ["ops"] })),
            userinfo: Mutex::new(json!({})),
            refusal: Mutex::default(),
            description: Mutex::new(json!({})),
            key: AtomicU8::new(1),
            signer: AtomicU8::new(1),
            fetched_keys: AtomicUsize::new(0),
            tokens: AtomicUsize::new(0),
            nonce: Mutex::default(),
        });
        let own = world.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (own, stream) = (own.clone(), stream.unwrap());
                std::thread::spawn(move || own.serve(stream));
            }
        });
        world
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let lower = head.to_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body).unwrap();
        let path = head.split(' ').nth(1).unwrap();
        let (status, answer) = self.answer(path, &lower, &String::from_utf8(body).unwrap());
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", answer.len());
        let mut stream = stream;
        let _ = stream.write_all(format!("{head}connection: close\r\n\r\n{answer}").as_bytes());
    }

    fn answer(&self, path: &str, head: &str, body: &str) -> (u16, Value) {
        match path {
            "/.well-known/openid-configuration" => (200, self.describe()),
            "/jwks" => {
                self.fetched_keys.fetch_add(1, Relaxed);
                let x = encoded(pair(self.key.load(Relaxed)).public_key().as_ref());
                (200, json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x }] }))
            }
            "/token" => {
                self.tokens.fetch_add(1, Relaxed);
                assert!(body.contains("code=c0de&") && body.contains("code_verifier="), "{body}");
                assert!(head.contains("authorization: basic b3v0cmlnz2vyonmzy3jlda=="), "{head}");
                let refusal = self.refusal.lock().unwrap().clone();
                let tokens = || json!({ "id_token": self.id_token(), "access_token": "at" });
                refusal.unwrap_or_else(|| (200, tokens()))
            }
            "/userinfo" => {
                assert!(head.contains("authorization: bearer at\r"), "{head}");
                (200, self.userinfo.lock().unwrap().clone())
            }
            _ => (404, json!({})),
        }
    }

    fn describe(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.issuer);
        let mut described = json!({
            "issuer": self.issuer, "authorization_endpoint": at("/auth"),
            "token_endpoint": at("/token"), "jwks_uri": at("/jwks"),
            "userinfo_endpoint": at("/userinfo"),
            "authorization_response_iss_parameter_supported": true,
        });
        change(&mut described, &self.description.lock().unwrap());
        described
    }

    fn id_token(&self) -> String {
        let now_s = now_s();
        let mut claims = json!({
            "iss": self.issuer, "aud": "outrigger", "sub": "7", "preferred_username": "ada",
            "nonce": *self.nonce.lock().unwrap(), "iat": now_s, "exp": now_s + 60,
        });
        change(&mut claims, &self.claims.lock().unwrap());
        let header = encoded(br#"{"alg":"EdDSA"}"#);
        let signed = format!("{header}.{}", encoded(claims.to_string().as_bytes()));
        let signature = pair(self.signer.load(Relaxed)).sign(signed.as_bytes());
        format!("{signed}.{}", encoded(signature.as_ref()))
    }

    /// As settings have it.
    fn sign_in(&self) -> SignIn {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        link::durable::write(&secret, b"s3cret\n", link::durable::Access::Private).unwrap();
        let settings = Oidc {
            issuer: self.issuer.clone(),
            client_id: "outrigger".into(),
            client_secret_file: secret,
            roles: vec!["operator=ops".parse().unwrap()],
            ..Oidc::default()
        };
        SignIn::open(&settings).unwrap().unwrap()
    }
}

fn change(object: &mut Value, changes: &Value) {
    let object = object.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => object.remove(name),
            value => object.insert(name.clone(), value.clone()),
        };
    }
}

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn redirect() -> Redirect {
    Redirect::on(HERE, 9)
}

fn verifier() -> Verifier {
    Verifier::from_entropy([7; 32])
}

/// Signs in as a person and a browser would.
async fn sign_in(world: &World, sign_in: &SignIn) -> Result<Signed, SignInError> {
    let url = sign_in.begin((&redirect(), &verifier().challenge()), HERE).await?;
    assert!(url.starts_with(&format!("{}/auth?", world.issuer)), "{url}");
    let said = |name: &str| {
        let rest = url.split(&format!("&{name}=")).nth(1).unwrap();
        rest.split('&').next().unwrap().to_owned()
    };
    *world.nonce.lock().unwrap() = said("nonce");
    finish(world, sign_in, said("state")).await
}

async fn finish(world: &World, sign_in: &SignIn, state: String) -> Result<Signed, SignInError> {
    let ended = Ended {
        code: "c0de".into(),
        state,
        verifier: verifier(),
        redirect: redirect(),
        issuer: Some(world.issuer.clone()),
    };
    sign_in.finish(ended, HERE).await
}

async fn refused(world: &World) -> SignInError {
    sign_in(world, &world.sign_in()).await.unwrap_err()
}

#[tokio::test]
async fn somebody_signs_in() {
    let world = World::start();
    let client = world.sign_in();
    let signed = sign_in(&world, &client).await.unwrap();
    let person: Person = format!("{} 7", world.issuer).parse().unwrap();
    assert_eq!(signed, Signed { person, name: "ada".into(), role: Role::Operator });
    sign_in(&world, &client).await.unwrap();
    assert_eq!((world.fetched_keys.load(Relaxed), world.tokens.load(Relaxed)), (1, 2));
    assert_eq!(client.session_s(), 8 * 3600);
    assert!(SignIn::open(&Oidc::default()).unwrap().is_none());
}

#[tokio::test]
async fn groups_may_stand_where_a_person_is_described() {
    let world = World::start();
    *world.claims.lock().unwrap() = json!({});
    *world.userinfo.lock().unwrap() = json!({ "sub": "7", "groups": "ops" });
    assert_eq!(sign_in(&world, &world.sign_in()).await.unwrap().role, Role::Operator);
    *world.userinfo.lock().unwrap() = json!({ "sub": "8", "groups": "ops" });
    assert!(matches!(refused(&world).await, SignInError::Token(TokenError::Claim(_))));
    *world.userinfo.lock().unwrap() = json!({ "sub": "7" });
    let error = refused(&world).await;
    assert!(matches!(error, SignInError::Role { why: NoRole::NotTold, .. }), "{error}");
    let token_alone = json!({ "groups": "ops", "preferred_username": null });
    *world.claims.lock().unwrap() = token_alone;
    *world.userinfo.lock().unwrap() = json!({ "sub": "7", "preferred_username": "ada" });
    assert_eq!(sign_in(&world, &world.sign_in()).await.unwrap().name, "ada");
    *world.userinfo.lock().unwrap() = json!([]);
    assert_eq!(sign_in(&world, &world.sign_in()).await.unwrap().name, "7", "its name is all");
    *world.claims.lock().unwrap() = json!({ "groups": ["others"] });
    *world.userinfo.lock().unwrap() = json!({ "sub": "7", "groups": "ops" });
    let error = refused(&world).await;
    assert!(matches!(error, SignInError::Role { why: NoRole::NoneFits, .. }), "{error}");
    assert!(error.is_theirs() && error.to_string().starts_with("ada has signed in, but no role"));
}

#[tokio::test]
async fn a_new_key_of_the_provider_is_fetched_at_once() {
    let world = World::start();
    let client = world.sign_in();
    sign_in(&world, &client).await.unwrap();
    world.key.store(2, Relaxed);
    world.signer.store(2, Relaxed);
    sign_in(&world, &client).await.unwrap();
    sign_in(&world, &client).await.unwrap();
    assert_eq!(world.fetched_keys.load(Relaxed), 2);
    world.signer.store(3, Relaxed);
    let error = sign_in(&world, &client).await.unwrap_err();
    assert!(matches!(error, SignInError::Token(TokenError::Signature)), "{error}");
}

#[tokio::test]
async fn who_is_to_blame() {
    let world = World::start();
    for (claims, error) in [
        (json!({ "nonce": "other" }), TokenError::Nonce),
        (json!({ "aud": "other" }), TokenError::Audience),
        (json!({ "exp": 1 }), TokenError::Expired),
    ] {
        *world.claims.lock().unwrap() = claims;
        let refused = refused(&world).await;
        assert!(matches!(&refused, SignInError::Token(e) if *e == error), "{refused}");
        assert!(refused.is_theirs());
    }
    for (status, answer, text, is_theirs) in [
        (400, json!({ "error": "invalid_grant" }), "does not take this code", true),
        (400, json!({ "error": "invalid_client" }), "does not take this cloud's", false),
        (401, json!({ "error": "<b>" }), "does not take this cloud's", false),
        (503, json!([]), "answers 503 where a token", false),
        (302, json!({}), "answers 302", false),
        (200, json!({}), "cannot be used", false),
    ] {
        *world.refusal.lock().unwrap() = Some((status, answer));
        let error = refused(&world).await;
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.is_theirs(), is_theirs, "{error}");
        assert!(!error.to_string().contains("<b>"));
    }
}

#[tokio::test]
async fn a_provider_that_is_another_or_away_is_said_and_not_asked_at_once_again() {
    let world = World::start();
    *world.description.lock().unwrap() = json!({ "issuer": "https://evil.example" });
    let client = world.sign_in();
    let error = sign_in(&world, &client).await.unwrap_err();
    assert!(error.to_string().contains("calls itself"), "{error}");
    *world.description.lock().unwrap() = json!({});
    assert!(sign_in(&world, &client).await.is_err(), "a moment ago it was of no use");
    client.relying.provider.age(KEPT);
    sign_in(&world, &client).await.unwrap();
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let away = Oidc { issuer: format!("http://{nobody}"), ..Oidc::default() };
    let away = SignIn::open(&away).unwrap().unwrap();
    let error = sign_in(&world, &away).await.unwrap_err();
    assert!(matches!(error, SignInError::Provider(ProviderError::Unreachable(_))), "{error}");
    assert!(!error.is_theirs());
}

#[tokio::test]
async fn an_end_without_a_beginning_costs_the_provider_nothing() {
    let world = World::start();
    let client = world.sign_in();
    let error = finish(&world, &client, "AAAA".into()).await.unwrap_err();
    assert!(matches!(error, SignInError::Ticket(TicketError::Unknown)), "{error}");
    let begun = client.tickets.begin(
        (&redirect(), &verifier().challenge()),
        [1; 16],
        now_s() - SIGN_IN_MAX_S - 1,
    );
    let error = finish(&world, &client, begun.state).await.unwrap_err();
    assert!(matches!(error, SignInError::Ticket(TicketError::Expired)), "{error}");
    assert_eq!(world.tokens.load(Relaxed), 0);
    for _ in 0..20 {
        assert!(client.failed(HERE).is_ok());
    }
    let error = sign_in(&world, &client).await.unwrap_err();
    assert!(matches!(error, SignInError::TooOften(_)), "{error}");
    let all = client.exchanges.try_acquire_many(4).unwrap();
    let ends = (&redirect(), &verifier().challenge());
    let elsewhere = "192.0.2.1".parse().unwrap();
    let error = client.begin(ends, elsewhere).await.unwrap_err();
    assert!(matches!(error, SignInError::Busy), "{error}");
    drop(all);
    client.begin(ends, elsewhere).await.unwrap();
}

#[tokio::test]
async fn who_sends_the_browser_back_has_to_be_the_provider() {
    let world = World::start();
    let client = world.sign_in();
    let ends = (&redirect(), &verifier().challenge());
    let begun = client.tickets.begin(ends, [1; 16], now_s());
    for issuer in [None, Some("https://evil.example".to_owned())] {
        let (code, state) = ("c0de".into(), begun.state.clone());
        let ended = Ended { code, state, verifier: verifier(), redirect: redirect(), issuer };
        let error = client.finish(ended, HERE).await.unwrap_err();
        assert!(matches!(error, SignInError::Issuer), "{error}");
    }
    assert_eq!(world.tokens.load(Relaxed), 0);
}

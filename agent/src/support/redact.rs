//! The gate through which every text goes before it leaves: what is, or could be, a secret stays.
//!
//! It knows three things: the shapes of secrets (PEM, long hexadecimal, long Base64), the names
//! under which people write them down, and the very lines of this device's key. Hashes have the
//! shape of secrets, so they are cut to twelve digits: enough to compare them.

use crate::identity::KEY_FILE;
use std::path::Path;

/// Digits of a hash that stay.
const HASH_SHOWN: usize = 12;
/// More hexadecimal or Base64 in one piece could be a secret.
const HEX_MAX: usize = 32;
const BASE64_MAX: usize = 40;
/// A line of a key file that is long enough to be part of the key.
const KEY_LINE_MIN: usize = 12;
/// What people call secrets; the value behind is left out.
const NAMES: [&str; 8] =
    ["secret", "password", "passwd", "token", "api_key", "apikey", "bearer", "authorization"];
const LEFT_OUT: &str = "[left out]";

/// What is known to be secret here.
pub(crate) struct Gate {
    key_lines: Vec<String>,
}

impl Gate {
    /// Learns this device's key, so that it is found wherever it was copied to.
    pub(crate) fn new(state_dir: &Path) -> Self {
        let key = std::fs::read_to_string(state_dir.join(KEY_FILE)).unwrap_or_default();
        let lines = key.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
        let key_lines = lines.filter(|l| l.len() >= KEY_LINE_MIN).map(str::to_owned).collect();
        Self { key_lines }
    }

    /// The text without its secrets.
    pub(crate) fn pass(&self, text: &str) -> String {
        let known =
            self.key_lines.iter().fold(text.to_owned(), |t, line| t.replace(line, LEFT_OUT));
        let mut in_pem = false;
        let mut passed = String::with_capacity(known.len());
        for line in known.split_inclusive('\n') {
            let begins = line.contains("-----BEGIN");
            if begins || in_pem {
                in_pem = !line.contains("-----END");
                if begins {
                    passed.push_str(LEFT_OUT);
                    passed.push('\n');
                }
            } else {
                passed.push_str(&without_shapes(&without_named(line)));
            }
        }
        passed
    }
}

/// `name = value` and `name: value` with a name that says that the value is secret. Numbers and
/// truth values are none.
fn without_named(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    for name in NAMES {
        let Some(at) = lower.find(name) else { continue };
        let after = at + name.len();
        let sign = lower[after..].find([':', '=', ' ']).map(|offset| after + offset);
        if let Some(sign) = sign.filter(|sign| is_key_end(&lower[after..*sign])) {
            let value = lower[sign..].trim_start_matches([':', '=', ' ', '"', '\'']);
            let is_word = lower.as_bytes()[sign] == b' '
                && !lower[sign..].trim_start().starts_with(['=', ':']);
            if value.trim().is_empty() || (is_word && name != "bearer") {
                continue;
            }
            let end = if line.ends_with('\n') { "\n" } else { "" };
            return format!("{}{} {LEFT_OUT}{end}", &line[..sign], &line[sign..=sign]);
        }
    }
    line.to_owned()
}

/// What may stand between a name and its sign: the rest of the name, and a closing quote.
fn is_key_end(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || "_-\"'".contains(c))
}

/// Long runs of hexadecimal are cut, long runs of Base64 left out.
fn without_shapes(line: &str) -> String {
    let mut passed = String::with_capacity(line.len());
    let mut rest = line;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_base64(c)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        passed.push_str(&shape(run));
        let skip = after.chars().next().map_or(0, char::len_utf8);
        passed.push_str(&after[..skip]);
        rest = &after[skip..];
    }
    passed
}

/// Not `/`: a path is no secret, and Base64 with slashes falls into runs that are each long.
fn is_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+=_-".contains(c)
}

fn shape(run: &str) -> String {
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    if run.len() > HEX_MAX && is_hex(run) {
        return format!("{}...", &run[..HASH_SHOWN]);
    }
    let has = |test: fn(&u8) -> bool| run.as_bytes().iter().any(&test);
    let mixed =
        has(u8::is_ascii_digit) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
    if has_long_hex(run) || (run.len() >= BASE64_MAX && mixed) {
        return LEFT_OUT.into();
    }
    run.into()
}

/// Hexadecimal that something else is glued to.
fn has_long_hex(run: &str) -> bool {
    run.split(|c: char| !c.is_ascii_hexdigit()).any(|part| part.len() > HEX_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn pass(text: &str) -> String {
        Gate { key_lines: vec!["MIGHAgEAMBMGByqGSM49/short".into()] }.pass(text)
    }

    #[test]
    fn secrets_in_every_dress_stay_behind() {
        let dresses = [
            HEX.to_owned(),
            HEX.to_uppercase(),
            format!("t-1.{HEX}.{HEX}"),
            format!("x_{HEX}_y"),
            format!("url=https://h/{HEX}?a={HEX}"),
            format!("-----BEGIN PRIVATE KEY-----\n{HEX}\n-----END PRIVATE KEY-----\n"),
            format!("{{\"key\":\"{HEX}\"}}"),
            "password = \"hunter2 0123456789abcdef\"".into(),
            "\"api_key\": \"hunter2\"".into(),
            "Authorization: Bearer hunter2".into(),
            "a copy MIGHAgEAMBMGByqGSM49/short hunter2 secret: hunter2".into(),
        ];
        for text in dresses {
            let passed = pass(&text).to_lowercase();
            for secret in [&HEX[12..30], "hunter2 0", "migha", ": \"hunter2", "bearer hunter2"] {
                assert!(!passed.contains(secret), "{text:?} became {passed:?}");
            }
        }
    }

    #[test]
    fn the_rest_stays() {
        let harmless = [
            "[offload]\nmargin_ms = 5\n",
            "connected to the cloud endpoint=127.0.0.1:8443\n",
            "/var/lib/outrigger-agent/bundles/x/model.onnx is damaged\n",
            "ask for a fresh token and --replace\n",
            "between -----BEGIN\nand\n-----END\nafter\n",
        ];
        for text in &harmless[..4] {
            assert_eq!(&pass(text), text);
        }
        assert_eq!(pass(harmless[4]), format!("{LEFT_OUT}\nafter\n"));
        assert_eq!(pass(&format!("bundle {HEX} kept\n")), "bundle 0123456789ab... kept\n");
    }
}

//! What devices can be asked for by: labels that operators give them, and what they say of themselves. The latter have
//! names that nobody can give, so that a query means the same on every device.

use protocol::wire::Inventory;

use crate::rollout::query::Labels;

/// Queries that may have a name.
pub const GROUPS_MAX: u32 = 256;
/// Labels that a device may be given.
pub const LABELS_MAX: usize = 32;
/// The longest key, and the longest value, in bytes.
pub const LABEL_MAX_BYTES: usize = 63;

/// What a device says of itself, and what is known of it anyway.
pub const OWN: [&str; 11] = [
    "agent",
    "arch",
    "cores",
    "device",
    "gpu",
    "memory_gb",
    "name",
    "os",
    "processor",
    "runtime",
    "tenant",
];
/// The same, one for each that it has: `cpu.avx512_vnni=yes`, `ep.cuda=yes`.
pub const OWN_PREFIXES: [&str; 2] = ["cpu.", "ep."];

/// Why a label is not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabel {
    /// Empty, too long, or of characters that no query can hold.
    #[error(
        "{0:?} is no label: key and value have 1 to {LABEL_MAX_BYTES} letters, digits and . _ - / :"
    )]
    Text(String),
    /// A word of queries.
    #[error("a label cannot be called {0:?}, which is a word of queries")]
    Word(String),
    /// Said by the device itself.
    #[error("a label cannot be called {0:?}: devices say that of themselves")]
    Own(String),
    /// One more than there may be.
    #[error("a device has at most {LABELS_MAX} labels")]
    TooMany,
}

/// Checks a label that an operator gives.
///
/// # Errors
/// [`InvalidLabel`].
pub fn check(key: &str, value: &str) -> Result<(), InvalidLabel> {
    let is_text = |text: &str| {
        (1..=LABEL_MAX_BYTES).contains(&text.len())
            && text.chars().all(super::rollout::query::is_word)
    };
    if !is_text(key) || !is_text(value) {
        return Err(InvalidLabel::Text(format!("{key}={value}")));
    }
    let reserved = crate::rollout::query::RESERVED;
    if let Some(word) =
        [key, value].into_iter().find(|w| reserved.iter().any(|r| r.eq_ignore_ascii_case(w)))
    {
        return Err(InvalidLabel::Word(word.to_owned()));
    }
    if OWN.contains(&key) || OWN_PREFIXES.iter().any(|own| key.starts_with(own)) {
        return Err(InvalidLabel::Own(key.to_owned()));
    }
    Ok(())
}

/// Checks all labels of a device.
///
/// # Errors
/// [`InvalidLabel`].
pub fn check_all(labels: &Labels) -> Result<(), InvalidLabel> {
    if labels.len() > LABELS_MAX {
        return Err(InvalidLabel::TooMany);
    }
    labels.iter().try_for_each(|(key, value)| check(key, value))
}

/// What is known of a device beside its labels.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its id.
    pub device: &'a str,
    /// What people call it.
    pub name: &'a str,
    /// Whom it belongs to.
    pub tenant: &'a str,
    /// Its processor's kind.
    pub arch: &'a str,
    /// Its operating system.
    pub os: &'a str,
    /// Its agent's version.
    pub agent: &'a str,
    /// What it said of its machine.
    pub inventory: Option<&'a Inventory>,
}

/// Everything that a device can be asked for by.
pub fn of(facts: &Facts<'_>, given: &Labels) -> Labels {
    let Facts { device, name, tenant, arch, os, agent, inventory } = *facts;
    let known = [
        ("device", device),
        ("name", name),
        ("tenant", tenant),
        ("arch", arch),
        ("os", os),
        ("agent", agent),
    ];
    let mut all = given.clone();
    let mut tell = |key: String, value: &str| {
        if !value.is_empty() {
            all.insert(key, word(value));
        }
    };
    known.into_iter().for_each(|(key, value)| tell(key.to_owned(), value));
    let Some(own) = inventory else { return all };
    tell("cores".into(), &own.cores.to_string());
    tell("memory_gb".into(), &gib(own.memory_bytes).to_string());
    tell("gpu".into(), &own.gpu);
    tell("processor".into(), &own.processor);
    tell("runtime".into(), &own.runtime);
    own.cpu_features.iter().take(LABELS_MAX).for_each(|f| tell(format!("cpu.{}", word(f)), "yes"));
    own.providers.iter().take(LABELS_MAX).for_each(|p| tell(format!("ep.{}", word(p)), "yes"));
    all
}

/// Whole GiB, rounded: what a machine is sold with, of which its system keeps some.
fn gib(bytes: u64) -> u64 {
    (bytes + (1 << 29)) >> 30
}

/// A text as a word of queries: what they cannot hold is a dash.
fn word(text: &str) -> String {
    let kept = |c: char| if crate::rollout::query::is_word(c) { c } else { '-' };
    text.chars().take(LABEL_MAX_BYTES).map(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::query::Query;

    #[test]
    fn what_a_query_could_not_ask_for_is_no_label() {
        assert_eq!(check("site", "lyon"), Ok(()));
        for (key, value) in
            [("", "x"), ("site", ""), ("a b", "x"), ("a", "x y"), ("a", &"x".repeat(64))]
        {
            assert!(matches!(check(key, value), Err(InvalidLabel::Text(_))), "{key}={value}");
        }
        assert!(matches!(check("And", "x"), Err(InvalidLabel::Word(_))));
        for own in ["arch", "cpu.avx2", "ep.cuda"] {
            assert!(matches!(check(own, "x"), Err(InvalidLabel::Own(_))), "{own}");
        }
        let many = (0..=LABELS_MAX).map(|i| (format!("k{i}"), "v".to_owned())).collect();
        assert_eq!(check_all(&many), Err(InvalidLabel::TooMany));
    }

    #[test]
    fn a_device_is_asked_for_by_what_it_says_of_itself() {
        let inventory = Inventory {
            cpu_features: vec!["avx512_vnni".into()],
            cores: 2,
            memory_bytes: 7_900_000_000,
            processor: "Acme (R) 3".into(),
            gpu: "none".into(),
            ..Default::default()
        };
        let facts = Facts {
            device: "d-1",
            name: "gate",
            tenant: "default",
            arch: "x86_64",
            os: "linux",
            agent: "0.1.0",
            inventory: Some(&inventory),
        };
        let given = [("site".to_owned(), "lyon".to_owned())].into();
        let all = of(&facts, &given);
        for query in
            ["site=lyon AND gpu=none", "cpu.avx512_vnni", "memory_gb=7", "processor=Acme--R--3"]
        {
            assert!(query.parse::<Query>().unwrap().matches(&all), "{query} {all:?}");
        }
        assert!(!"runtime".parse::<Query>().unwrap().matches(&all), "it did not say");
    }
}

//! How far a process was confined.

use serde::{Deserialize, Serialize};

/// How far the process was confined, by layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Files that it does not need, and the network (Landlock).
    pub files: Layer,
    /// What it may ask of the kernel (seccomp).
    pub system_calls: Layer,
    /// Memory, processor time, files (resource limits).
    pub resources: Layer,
}

/// How much of a layer this system has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// All of it.
    Full,
    /// With what is missing.
    Partial(String),
    /// With the reason.
    None(String),
}

impl Confinement {
    fn layers(&self) -> [(&'static str, &Layer); 3] {
        [
            ("files and network", &self.files),
            ("system calls", &self.system_calls),
            ("memory and time", &self.resources),
        ]
    }

    /// Whether every layer holds in full.
    pub fn is_full(&self) -> bool {
        self.layers().iter().all(|(_, layer)| **layer == Layer::Full)
    }
}

impl std::fmt::Display for Confinement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts = self.layers().map(|(name, layer)| match layer {
            Layer::Full => format!("{name} confined"),
            Layer::Partial(why) => format!("{name} confined in part ({why})"),
            Layer::None(why) => format!("{name} NOT confined ({why})"),
        });
        f.write_str(&texts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confinement_says_what_is_missing() {
        let mut confinement =
            Confinement { files: Layer::Full, system_calls: Layer::Full, resources: Layer::Full };
        assert!(confinement.is_full());
        confinement.files = Layer::None("no Landlock".into());
        assert!(!confinement.is_full());
        let text = confinement.to_string();
        assert!(text.starts_with("files and network NOT confined (no Landlock); "), "{text}");
        let json = serde_json::to_string(&confinement).unwrap();
        assert_eq!(serde_json::from_str::<Confinement>(&json).unwrap(), confinement);
    }
}

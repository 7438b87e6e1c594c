//! Which execution providers are not used, and why, in as few lines as there are reasons.

use crate::serve::ModelStatus;
use std::collections::BTreeMap;

/// One line per reason: the providers, and the models where it does not hold for all of them.
pub(super) fn not_used(models: &[ModelStatus]) -> Vec<String> {
    let running: Vec<_> = models.iter().filter_map(|m| Some((m, m.running.as_ref()?))).collect();
    // By provider and reason, then by reason and models.
    let mut found: Vec<(&str, String, Vec<&str>)> = Vec::new();
    for (model, running) in &running {
        for passed in &running.choice.passed_over {
            let (provider, reason) = (passed.provider.as_str(), passed.reason.to_string());
            let same = |f: &&mut (&str, String, Vec<&str>)| f.0 == provider && f.1 == reason;
            match found.iter_mut().find(same) {
                Some((_, _, models)) => models.push(&model.name),
                None => found.push((provider, reason, vec![&model.name])),
            }
        }
    }
    let mut lines: BTreeMap<(usize, String), Vec<&str>> = BTreeMap::new();
    for (at, (provider, reason, models)) in found.iter().enumerate() {
        let of = match models.len() == running.len() {
            true => String::new(),
            false => format!(" ({})", models.join(", ")),
        };
        let text = format!("{reason}{of}");
        let first = lines.keys().find(|(_, known)| *known == text).map_or(at, |(first, _)| *first);
        lines.entry((first, text)).or_default().push(provider);
    }
    lines.into_iter().map(|((_, text), who)| format!("{}: {text}", who.join(", "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Running;
    use models::providers::{Choice, PassedOver, Provider, Reason};

    #[test]
    fn reasons_are_told_once() {
        let model = |name: &str, reasons: Vec<(Provider, Reason)>| {
            let passed = |(provider, reason)| PassedOver { provider, reason };
            let choice = Choice::cpu(reasons.into_iter().map(passed).collect());
            let running = Running { memory: "resident".into(), memory_bytes: 1, choice };
            ModelStatus { name: name.into(), running: Some(running), ..ModelStatus::default() }
        };
        let slower = Reason::Slower { provider_us: 2000, cpu_us: 1000 };
        let models = [
            model("a", vec![(Provider::Cuda, Reason::NotBuiltIn), (Provider::Qnn, slower)]),
            model(
                "b",
                vec![(Provider::Cuda, Reason::NotBuiltIn), (Provider::Qnn, Reason::NotBuiltIn)],
            ),
            ModelStatus::default(),
        ];
        assert_eq!(
            not_used(&models),
            [
                "cuda: this build of ONNX Runtime does not have it",
                "qnn: slower than the CPU: 2.0 ms against 1.0 ms (a)",
                "qnn: this build of ONNX Runtime does not have it (b)",
            ]
        );
        assert_eq!(not_used(&models[..1]).len(), 2);
    }
}

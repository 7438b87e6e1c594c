//! Who may import whom.
//!
//! [`LAYERS`] is the one direction of imports inside the workspace and is closed: an edge that it does not name is
//! forbidden, and so is a crate without a row. It holds for every kind of import: a crate's own tests use fakes, and a test that
//! needs both ends lives in tests/. [`OUT_OF_REACH`] is about what gets linked, so it follows normal imports only, through
//! any number of other people's crates. [`BANNED`] holds for every kind again, and [`SOLE_IMPORTERS`] for direct imports.

use super::Violation;
use super::graph::{Graph, Kind};

/// A crate of the workspace and the crates of the workspace that it may import.
pub struct Layer {
    /// Package name.
    pub name: &'static str,
    /// Package names that it may import; `*` stands for all.
    pub may_import: &'static [&'static str],
    /// Why no others.
    pub reason: &'static str,
}

/// What crates must not reach, directly or through others.
pub struct OutOfReach {
    /// Package names that the rule is for.
    pub from: &'static [&'static str],
    /// Package names out of their reach; a trailing `*` stands for any ending.
    pub never: &'static [&'static str],
    /// Why not.
    pub reason: &'static str,
}

/// A package that only one other package may import directly.
pub struct SoleImporter {
    /// The package.
    pub package: &'static str,
    /// The only one that may import it.
    pub importer: &'static str,
    /// Why only that one.
    pub reason: &'static str,
}

const TOOLCHAIN: &str = "the toolchain stands on protocol and models alone: it runs on local files, without agent or cloud";

/// Imports inside the workspace, from the bottom up.
pub const LAYERS: &[Layer] = &[
    Layer {
        name: "outrigger-protocol",
        may_import: &[],
        reason: "protocol is the bottom: what both ends agree on depends on neither",
    },
    Layer {
        name: "outrigger-edge",
        may_import: &["outrigger-protocol", "outrigger-telemetry"],
        reason: "what a device decides is pure and knows nothing of the cloud's decisions, of models or of sockets",
    },
    Layer {
        name: "outrigger-fleet",
        may_import: &["outrigger-protocol"],
        reason: "what the cloud decides is pure and knows nothing of a device's decisions, of models or of sockets",
    },
    Layer {
        name: "outrigger-link",
        may_import: &["outrigger-protocol"],
        reason: "link carries frames for both ends: it decides nothing and knows no models",
    },
    Layer {
        name: "outrigger-delta",
        may_import: &[],
        reason: "delta turns bytes into fewer bytes and back: whose they are, and where they go, is not its business",
    },
    Layer {
        name: "outrigger-telemetry",
        may_import: &["outrigger-protocol"],
        reason: "telemetry is records and sealed bytes: who records, sends or keeps them, and when, is not its business",
    },
    Layer {
        name: "outrigger-oip",
        may_import: &["outrigger-protocol"],
        reason: "oip speaks the standard for whoever can answer: what answers, and from where, is not its business",
    },
    Layer {
        name: "outrigger-models",
        may_import: &["outrigger-protocol", "outrigger-delta"],
        reason: "models knows tensors and ONNX Runtime; who asks, and from where, is none of its business",
    },
    Layer {
        name: "outrigger-confine",
        may_import: &["outrigger-protocol"],
        reason: "confine takes rights away from a process, for agent and cloud alike: what it then does is not its business",
    },
    Layer {
        name: "outrigger-compress",
        may_import: &["outrigger-protocol", "outrigger-models"],
        reason: TOOLCHAIN,
    },
    Layer {
        name: "outrigger-data",
        may_import: &["outrigger-protocol", "outrigger-models"],
        reason: TOOLCHAIN,
    },
    Layer {
        name: "outrigger-train",
        may_import: &["outrigger-protocol", "outrigger-models"],
        reason: TOOLCHAIN,
    },
    Layer {
        name: "outrigger-agent",
        may_import: &[
            "outrigger-protocol",
            "outrigger-edge",
            "outrigger-delta",
            "outrigger-telemetry",
            "outrigger-link",
            "outrigger-oip",
            "outrigger-models",
            "outrigger-confine",
        ],
        reason: "the agent drives the device's decisions; the cloud is a peer that it talks to, not code that it links",
    },
    Layer {
        name: "outrigger-cloud",
        may_import: &[
            "outrigger-protocol",
            "outrigger-fleet",
            "outrigger-delta",
            "outrigger-telemetry",
            "outrigger-link",
            "outrigger-oip",
            "outrigger-models",
            "outrigger-confine",
        ],
        reason: "the cloud drives the fleet's decisions; an agent is a peer that it talks to, not code that it links",
    },
    Layer {
        name: "outrigger-analytics",
        may_import: &["outrigger-protocol", "outrigger-telemetry"],
        reason: "analytics runs where the private key is, which need not be where the cloud is",
    },
    Layer {
        name: "outrigger-cli",
        may_import: &[
            "outrigger-protocol",
            "outrigger-analytics",
            "outrigger-fleet",
            "outrigger-delta",
            "outrigger-telemetry",
            "outrigger-link",
            "outrigger-models",
            "outrigger-compress",
            "outrigger-data",
            "outrigger-train",
        ],
        reason: "the operator's command is a client of the admin API and the toolchain's front: it links neither end",
    },
    Layer {
        name: "outrigger-fleet-sim",
        may_import: &["outrigger-protocol", "outrigger-edge", "outrigger-link"],
        reason: "simulated devices decide as agents do and know the cloud as a peer, without models: what agents import, less those",
    },
    Layer { name: "outrigger-tests", may_import: &["*"], reason: "tests may see everything" },
    Layer {
        name: "xtask",
        may_import: &[],
        reason: "the project's own command must build in seconds, and while the product does not compile",
    },
];

/// What is linked into what, through any number of crates.
pub const OUT_OF_REACH: &[OutOfReach] = &[
    OutOfReach {
        from: &[
            "outrigger-protocol",
            "outrigger-edge",
            "outrigger-fleet",
            "outrigger-delta",
            "outrigger-telemetry",
        ],
        never: &["tokio", "quinn", "quinn-proto", "rustls", "ort", "rusqlite"],
        reason: "the crates that decide do no IO, read no clock and start no thread, so that both ends can be simulated from one seed",
    },
    OutOfReach {
        from: &["outrigger-link"],
        never: &["ort", "rusqlite"],
        reason: "link only moves frames: it runs no model and keeps no state",
    },
    OutOfReach {
        from: &["outrigger-oip"],
        never: &["quinn", "quinn-proto", "ort", "rusqlite"],
        reason: "oip is sockets and the standard, so that agent and cloud can both stand on it: it runs no model, keeps no state and knows no other transport",
    },
    OutOfReach {
        from: &["outrigger-models"],
        never: &["tokio", "quinn", "quinn-proto", "rusqlite"],
        reason: "a session belongs to one plain thread; a runtime, a network or a database in models would reach every device",
    },
    OutOfReach {
        from: &["outrigger-agent"],
        never: &[
            "outrigger-fleet",
            "outrigger-cloud",
            "outrigger-compress",
            "outrigger-data",
            "outrigger-train",
            "datafusion*",
            "candle*",
        ],
        reason: "the agent is the light float: what only the cloud or the toolchain needs costs memory on every device",
    },
    OutOfReach {
        from: &["outrigger-cloud"],
        never: &[
            "outrigger-agent",
            "outrigger-edge",
            "outrigger-compress",
            "outrigger-data",
            "outrigger-train",
        ],
        reason: "the server serves; the toolchain runs where the operator is, and a device's decisions run on devices",
    },
    OutOfReach {
        from: &["xtask"],
        never: &["tokio", "rustls", "ort", "rusqlite"],
        reason: "the project's own command must build in seconds",
    },
];

/// What no package may import, not even for tests.
pub const BANNED: OutOfReach = OutOfReach {
    from: &["*"],
    never: &["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls"],
    reason: "there is one TLS stack, rustls with ring: a second one doubles what has to be patched and cross-compiled",
};

/// Packages behind one door.
pub const SOLE_IMPORTERS: &[SoleImporter] = &[
    SoleImporter {
        package: "ort",
        importer: "outrigger-models",
        reason: "models is the only place that knows ONNX Runtime; everybody else uses its `Backend`",
    },
    SoleImporter {
        package: "hpke",
        importer: "outrigger-telemetry",
        reason: "ring is the cryptography; only what it has no part of comes from elsewhere, and only there",
    },
];

/// Every broken rule about imports.
#[must_use]
pub fn check(graph: &Graph) -> Vec<Violation> {
    let mut violations = layers(graph);
    violations
        .extend(OUT_OF_REACH.iter().flat_map(|rule| out_of_reach(graph, rule, &[Kind::Normal])));
    violations.extend(out_of_reach(graph, &BANNED, &[Kind::Normal, Kind::Build, Kind::Dev]));
    violations.extend(SOLE_IMPORTERS.iter().flat_map(|rule| sole_importer(graph, rule)));
    violations
}

fn layers(graph: &Graph) -> Vec<Violation> {
    let unlisted = graph.members().map(|id| graph.name(id)).filter(|name| layer(name).is_none()).map(|name| Violation {
        what: name.to_owned(),
        rule: "every crate of the workspace has a row in LAYERS (tests/src/architecture/imports.rs) that says what it may import".into(),
    });
    let edges =
        graph.imports().filter(|(from, to, _)| graph.is_member(from) && graph.is_member(to));
    let forbidden =
        edges.filter_map(|(from, to, _)| forbidden_edge(graph.name(from), graph.name(to)));
    let mut violations: Vec<Violation> = unlisted.chain(forbidden).collect();
    violations.dedup();
    violations
}

fn layer(name: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.name == name)
}

fn forbidden_edge(from: &str, to: &str) -> Option<Violation> {
    let layer = layer(from)?;
    if matches_any(to, layer.may_import) {
        return None;
    }
    let allowed =
        if layer.may_import.is_empty() { "none".to_owned() } else { layer.may_import.join(", ") };
    Some(Violation {
        what: format!("{from} -> {to}"),
        rule: format!(
            "{from} must not import {to}: {} (of the workspace it may import: {allowed})",
            layer.reason
        ),
    })
}

fn out_of_reach(graph: &Graph, rule: &OutOfReach, kinds: &[Kind]) -> Vec<Violation> {
    let starts = graph.members().filter(|id| matches_any(graph.name(id), rule.from));
    let ways = starts.flat_map(|id| graph.ways(id, kinds).into_values());
    let broken = ways.filter(|way| breaks(graph, way, rule));
    broken.map(|way| unwanted(graph, &way, rule.reason)).collect()
}

/// Whether `way` ends out of reach. One cause is told once: a way through a package that breaks the same rule is left out.
fn breaks(graph: &Graph, way: &[String], rule: &OutOfReach) -> bool {
    let is_unwanted = |id: &String| matches_any(graph.name(id), rule.never);
    let is_start = |id: &String| graph.is_member(id) && matches_any(graph.name(id), rule.from);
    let [_, between @ .., last] = way else { return false };
    is_unwanted(last) && !between.iter().any(|id| is_unwanted(id) || is_start(id))
}

fn unwanted(graph: &Graph, way: &[String], reason: &str) -> Violation {
    let names: Vec<&str> = way.iter().map(|id| graph.name(id)).collect();
    let (from, to) = (names[0], names[names.len() - 1]);
    Violation { what: names.join(" -> "), rule: format!("{from} must not reach {to}: {reason}") }
}

fn sole_importer(graph: &Graph, rule: &SoleImporter) -> Vec<Violation> {
    let importers = graph.imports().filter(|(_, to, _)| graph.name(to) == rule.package);
    let others = importers.map(|(from, ..)| graph.name(from)).filter(|from| *from != rule.importer);
    others
        .map(|from| Violation {
            what: format!("{from} -> {}", rule.package),
            rule: format!("only {} may import {}: {}", rule.importer, rule.package, rule.reason),
        })
        .collect()
}

fn matches_any(name: &str, patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *pattern,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small workspace that keeps every rule, with `extra` imports added; external crates have no prefix.
    fn workspace(extra: &[(&str, &str, Kind)]) -> Graph {
        let mut graph = Graph::default();
        for layer in LAYERS {
            graph.add(layer.name, layer.name, true);
            for to in layer.may_import.iter().filter(|to| **to != "*") {
                graph.import(layer.name, to, Kind::Normal);
            }
        }
        let external = [
            ("outrigger-models", "ort"),
            ("outrigger-link", "quinn"),
            ("quinn", "tokio"),
            ("outrigger-cloud", "rusqlite"),
        ];
        for (from, to) in external {
            graph.add(to, to, false);
            graph.import(from, to, Kind::Normal);
        }
        for (from, to, kind) in extra {
            graph.import(from, to, *kind);
        }
        graph
    }

    /// The violations that the `extra` imports cause, `what` and `rule` in one line each.
    fn check_with(extra: &[(&str, &str, Kind)]) -> Vec<String> {
        check(&workspace(extra)).iter().map(|v| format!("{} | {}", v.what, v.rule)).collect()
    }

    #[track_caller]
    fn check_fails(extra: &[(&str, &str, Kind)], what: &str, rule_part: &str) {
        let found = check_with(extra);
        let hit = found
            .iter()
            .any(|line| line.starts_with(&format!("{what} | ")) && line.contains(rule_part));
        assert!(hit, "no violation {what:?} with {rule_part:?} in {found:#?}");
    }

    #[test]
    fn a_workspace_that_keeps_the_rules_passes() {
        assert_eq!(check_with(&[]), Vec::<String>::new());
    }

    #[test]
    fn edges_inside_the_workspace_fail_with_their_reason() {
        let edges = [
            ("outrigger-agent", "outrigger-cloud", "not code that it links"),
            ("outrigger-agent", "outrigger-fleet", "drives the device's decisions"),
            ("outrigger-cloud", "outrigger-agent", "not code that it links"),
            ("outrigger-fleet", "outrigger-edge", "what the cloud decides is pure"),
            ("outrigger-link", "outrigger-models", "link carries frames"),
            ("outrigger-protocol", "outrigger-models", "protocol is the bottom"),
            ("outrigger-cli", "outrigger-cloud", "links neither end"),
            ("xtask", "outrigger-protocol", "must build in seconds"),
        ];
        for (from, to, reason) in edges {
            for kind in [Kind::Normal, Kind::Build, Kind::Dev] {
                check_fails(&[(from, to, kind)], &format!("{from} -> {to}"), reason);
            }
        }
    }

    #[test]
    fn a_direct_import_out_of_reach_fails() {
        let edge = ("outrigger-protocol", "tokio", Kind::Normal);
        check_fails(&[edge], "outrigger-protocol -> tokio", "do no IO, read no clock");
        // Other rules that it breaks are told as well; the same rule for whoever stands on protocol is not.
        let models = "outrigger-models -> outrigger-protocol -> tokio";
        check_fails(&[edge], models, "models must not reach tokio");
        assert!(!check_with(&[edge]).iter().any(|line| line.starts_with("outrigger-edge")));
    }

    #[test]
    fn an_import_through_others_fails_and_shows_the_way() {
        let extra = [("outrigger-models", "hub", Kind::Normal), ("hub", "quinn", Kind::Normal)];
        check_fails(
            &extra,
            "outrigger-models -> hub -> quinn",
            "outrigger-models must not reach quinn",
        );
        let extra = [
            ("outrigger-agent", "frames", Kind::Normal),
            ("frames", "datafusion-expr", Kind::Normal),
        ];
        check_fails(&extra, "outrigger-agent -> frames -> datafusion-expr", "light float");
    }

    #[test]
    fn what_only_tests_or_build_scripts_use_is_not_linked() {
        let extra = [
            ("outrigger-protocol", "tokio", Kind::Dev),
            ("outrigger-models", "rusqlite", Kind::Build),
        ];
        assert_eq!(check_with(&extra), Vec::<String>::new());
    }

    #[test]
    fn a_second_tls_stack_fails_even_in_tests() {
        let extra =
            [("outrigger-tests", "client", Kind::Dev), ("client", "aws-lc-rs", Kind::Normal)];
        check_fails(&extra, "outrigger-tests -> client -> aws-lc-rs", "one TLS stack");
    }

    #[test]
    fn onnx_runtime_has_one_door() {
        check_fails(
            &[("outrigger-agent", "ort", Kind::Normal)],
            "outrigger-agent -> ort",
            "only outrigger-models",
        );
        check_fails(
            &[("embedder", "ort", Kind::Normal)],
            "embedder -> ort",
            "only outrigger-models",
        );
    }

    #[test]
    fn a_crate_without_a_row_fails() {
        let mut graph = workspace(&[]);
        graph.add("outrigger-new", "outrigger-new", true);
        let found = check(&graph);
        assert_eq!(found.len(), 1);
        assert!(found[0].rule.contains("has a row in LAYERS"));
    }
}

//! Packages and who imports whom: just enough of `cargo metadata` to ask "can a reach b, and by which way?".

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What an import is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Linked into the program.
    Normal,
    /// Used by a build script or a procedural macro's build.
    Build,
    /// Used by tests only.
    Dev,
}

/// A package and its direct imports.
#[derive(Clone, Debug)]
struct Package {
    name: String,
    imports: BTreeSet<(String, Kind)>,
}

/// The resolved packages of a workspace by their id; two versions of one crate are two packages.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    packages: BTreeMap<String, Package>,
    members: BTreeSet<String>,
}

impl Graph {
    /// Adds a package, before its imports, under its id; a `member` is one of the workspace's own.
    pub fn add(&mut self, id: &str, name: &str, member: bool) {
        let package = Package { name: name.to_owned(), imports: BTreeSet::new() };
        self.packages.insert(id.to_owned(), package);
        if member {
            self.members.insert(id.to_owned());
        }
    }

    /// Adds the import `from -> to`, both by id; a package that was not added before is named as its id.
    pub fn import(&mut self, from: &str, to: &str, kind: Kind) {
        let named = || Package { name: from.to_owned(), imports: BTreeSet::new() };
        self.packages
            .entry(from.to_owned())
            .or_insert_with(named)
            .imports
            .insert((to.to_owned(), kind));
    }

    /// The name of the package `id`; the id itself where the package is not known.
    #[must_use]
    pub fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.packages.get(id).map_or(id, |package| &package.name)
    }

    /// Whether the package `id` is one of the workspace's own.
    #[must_use]
    pub fn is_member(&self, id: &str) -> bool {
        self.members.contains(id)
    }

    /// The ids of the workspace's own packages.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(String::as_str)
    }

    /// All direct imports as (from, to, kind), by id.
    pub fn imports(&self) -> impl Iterator<Item = (&str, &str, Kind)> {
        self.packages.iter().flat_map(|(from, p)| {
            p.imports.iter().map(move |(to, kind)| (from.as_str(), to.as_str(), *kind))
        })
    }

    /// The shortest ways from `start` to each package that it reaches through imports of these `kinds`,
    /// each as ids from `start` to the package, both included.
    #[must_use]
    pub fn ways(&self, start: &str, kinds: &[Kind]) -> BTreeMap<String, Vec<String>> {
        let mut ways = BTreeMap::from([(start.to_owned(), vec![start.to_owned()])]);
        let mut queue = VecDeque::from([start.to_owned()]);
        while let Some(id) = queue.pop_front() {
            let Some(package) = self.packages.get(&id) else { continue };
            for (to, kind) in &package.imports {
                if !kinds.contains(kind) || ways.contains_key(to) {
                    continue;
                }
                let mut way = ways[&id].clone();
                way.push(to.clone());
                ways.insert(to.clone(), way);
                queue.push_back(to.clone());
            }
        }
        ways
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Graph {
        let mut graph = Graph::default();
        for id in ["a", "b", "c", "d"] {
            graph.add(id, id, id == "a");
        }
        graph.import("a", "b", Kind::Normal);
        graph.import("b", "c", Kind::Normal);
        graph.import("c", "a", Kind::Normal);
        graph.import("a", "d", Kind::Dev);
        graph
    }

    #[test]
    fn the_way_is_the_shortest_and_a_cycle_ends() {
        let ways = chain().ways("a", &[Kind::Normal]);
        assert_eq!(ways["c"], ["a", "b", "c"]);
        assert_eq!(ways.len(), 3);
    }

    #[test]
    fn kinds_that_were_not_asked_for_are_not_followed() {
        assert!(!chain().ways("a", &[Kind::Normal]).contains_key("d"));
        assert!(chain().ways("a", &[Kind::Normal, Kind::Dev]).contains_key("d"));
    }
}

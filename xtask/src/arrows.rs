//! Which crate may know which: the arrows of ARCHITECTURE.md, asserted.

/// What a library crate may depend on among our own, each list complete (not just the next arrow).
/// A crate that is not here is an error: a new crate gets its row, and the row gets a review.
#[rustfmt::skip]
const ARROWS: &[(&str, &[&str])] = &[
    // crate                may depend on
    ("firebrick-classic",   &[]),
    ("firebrick-kernels",   &[]),
    ("firebrick-metrics",   &[]),
    ("firebrick-serve",     &[]),
    ("firebrick-signal",    &[]),
    ("xtask",               &[]),
    ("firebrick-data",      &["firebrick-metrics", "firebrick-signal"]),
    ("firebrick-engine",    &["firebrick-metrics"]),
    ("firebrick-core",      &["firebrick-kernels"]),
    ("firebrick-train",     &["firebrick-core", "firebrick-kernels"]),
    ("firebrick-compress",  &["firebrick-train", "firebrick-core", "firebrick-kernels"]),
    ("firebrick-trust",     &["firebrick-train", "firebrick-core", "firebrick-kernels"]),
];

/// Crates that build and test in seconds because no Burn is in them.
const WITHOUT_BURN: &[&str] = &[
    "firebrick-classic",
    "firebrick-data",
    "firebrick-kernels",
    "firebrick-metrics",
    "firebrick-serve",
    "firebrick-signal",
    "xtask",
];

/// May depend on every crate, applications too.
const EVERYTHING: &[&str] = &["firebrick", "firebrick-benches"];

/// A package of the workspace and the names of all that it depends on, outside and in.
#[derive(Debug, Clone)]
pub struct Node {
    pub name: String,
    /// Lies in `apps/`.
    pub app: bool,
    pub dependencies: Vec<String>,
}

/// One line for each arrow that should not be, or crate that has no row.
pub fn violations(nodes: &[Node]) -> Vec<String> {
    let mut found = vec![];
    for node in nodes {
        let name = node.name.as_str();
        if WITHOUT_BURN.contains(&name) {
            let burn = node.dependencies.iter().filter(|d| *d == "burn" || d.starts_with("burn-"));
            found
                .extend(burn.map(|burn| format!("{name} -> {burn}: {name} is built without Burn")));
        }
        let known = ARROWS.iter().find(|(of, _)| *of == name).map(|(_, may)| *may);
        if known.is_none() && !node.app && !EVERYTHING.contains(&name) {
            found.push(format!("{name}: not in the table of xtask/src/arrows.rs"));
            continue;
        }
        for dependency in &node.dependencies {
            let Some(target) = nodes.iter().find(|node| node.name == *dependency) else {
                continue; // not one of ours
            };
            let allowed = match known {
                _ if EVERYTHING.contains(&name) => true,
                Some(may) => may.contains(&dependency.as_str()),
                None => !target.app && !EVERYTHING.contains(&dependency.as_str()),
            };
            if !allowed {
                let may = match known {
                    None => "any library crate, but no application",
                    Some([]) => "no crate of this workspace",
                    Some(may) => &may.join(", "),
                };
                found.push(format!("{name} -> {dependency}: {name} may depend on {may}"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPS: &[&str] = &["firebrick", "firebrick-nlp", "firebrick-vision"];

    /// Every crate, with just these arrows among them.
    #[track_caller]
    fn check(arrows: &[(&str, &str)], expected: &[&str]) {
        let names = ARROWS.iter().map(|(name, _)| *name).chain(APPS.iter().copied());
        let nodes: Vec<Node> = names
            .chain(["firebrick-benches"])
            .map(|name| Node {
                name: name.into(),
                app: APPS.contains(&name),
                dependencies: arrows
                    .iter()
                    .filter(|(from, _)| *from == name)
                    .map(|(_, to)| to.to_string())
                    .collect(),
            })
            .collect();
        assert_eq!(violations(&nodes), expected);
    }

    #[test]
    fn arrows_point_down() {
        check(
            &[("firebrick-train", "firebrick-core"), ("firebrick-train", "firebrick-kernels")],
            &[],
        );
        check(&[("firebrick-trust", "firebrick-kernels"), ("firebrick-core", "burn")], &[]);
        check(
            &[("firebrick-core", "firebrick-train")],
            &["firebrick-core -> firebrick-train: firebrick-core may depend on firebrick-kernels"],
        );
        check(
            &[("firebrick-compress", "firebrick-metrics")],
            &["firebrick-compress -> firebrick-metrics: firebrick-compress may depend on \
             firebrick-train, firebrick-core, firebrick-kernels"],
        );
        check(
            &[("xtask", "firebrick-metrics")],
            &["xtask -> firebrick-metrics: xtask may depend on no crate of this workspace"],
        );
    }

    #[test]
    fn applications_do_not_know_one_another() {
        check(&[("firebrick-nlp", "firebrick-train"), ("firebrick-nlp", "firebrick-serve")], &[]);
        check(&[("firebrick", "firebrick-nlp"), ("firebrick", "firebrick-vision")], &[]);
        check(&[("firebrick-benches", "firebrick-nlp")], &[]);
        check(
            &[("firebrick-nlp", "firebrick-vision")],
            &[
                "firebrick-nlp -> firebrick-vision: firebrick-nlp may depend on any library crate, but no application",
            ],
        );
        check(
            &[("firebrick-vision", "firebrick-benches")],
            &[
                "firebrick-vision -> firebrick-benches: firebrick-vision may depend on any library crate, but no application",
            ],
        );
    }

    #[test]
    fn small_crates_stay_without_burn() {
        check(
            &[("firebrick-data", "burn"), ("firebrick-data", "burnish")],
            &["firebrick-data -> burn: firebrick-data is built without Burn"],
        );
        check(
            &[("firebrick-serve", "burn-flex")],
            &["firebrick-serve -> burn-flex: firebrick-serve is built without Burn"],
        );
    }

    #[test]
    fn a_new_crate_needs_a_row() {
        let node = Node { name: "firebrick-new".into(), app: false, dependencies: vec![] };
        assert_eq!(violations(&[node]), ["firebrick-new: not in the table of xtask/src/arrows.rs"]);
    }
}

//! Runs the benchmarks and prints their medians against those of the peers in the same run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{cargo, loud, target_dir};

/// Ours, and what it is compared with.
const OURS: &str = "softvfio";
const PEERS: [&str; 2] = ["btreemap", "rbtree"];

/// `cargo bench`, then a table of medians. More arguments go to the benchmarks.
pub(crate) fn bench(options: &[&str]) -> Result<(), String> {
    let mut command = cargo(&["bench", "--package", "softvfio-bench", "--"]);
    loud(command.args(options))?;
    print!("{}", table(&target_dir().join("criterion"))?);
    draw(&[])?;
    door()
}

/// Pictures of large traces: what the program takes for them. OPTIONS: the number of maps.
pub(crate) fn draw(options: &[&str]) -> Result<(), String> {
    loud(&mut cargo(&["build", "--release", "--package", "softvfio"]))?;
    let program = target_dir().join("release/softvfio");
    let example = ["run", "--release", "--package", "softvfio-draw", "--example", "bench_draw"];
    loud(cargo(&example).arg("--").arg(program).args(options))
}

/// The door: a program of its own, as it needs processes.
pub(crate) fn door() -> Result<(), String> {
    let example =
        ["run", "--release", "--package", "softvfio-supervise", "--example", "bench_door"];
    loud(&mut cargo(&example))?;
    Ok(())
}

/// Medians in nanoseconds by (what, live mappings) and structure.
type Medians = BTreeMap<(String, u64), BTreeMap<String, f64>>;

fn table(root: &Path) -> Result<String, String> {
    let mut medians = Medians::new();
    for what in folders(root)? {
        for structure in folders(&root.join(&what))? {
            for n in folders(&root.join(&what).join(&structure))? {
                let at = root.join(&what).join(&structure).join(&n).join("new/estimates.json");
                let (Ok(text), Ok(n)) = (fs::read_to_string(&at), n.parse()) else { continue };
                let median = median(&text).ok_or(format!("{}: no median", at.display()))?;
                let row = medians.entry((what.clone(), n)).or_default();
                row.insert(structure.clone(), median);
            }
        }
    }
    let mut text =
        String::from("| what | live mappings | softvfio | BTreeMap / ours | rbtree / ours |\n");
    text += "|---|---|---|---|---|\n";
    for ((what, n), row) in &medians {
        let Some(ours) = row.get(OURS) else { continue };
        let ratio = |peer| match row.get(peer) {
            Some(theirs) => format!("{:.2}", theirs / ours),
            None => "-".into(),
        };
        let [b, r] = PEERS.map(ratio);
        text += &format!("| {what} | {n} | {ours:.0} ns | {b} | {r} |\n");
    }
    Ok(text)
}

fn folders(at: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(at).map_err(|e| format!("{}: {e}", at.display()))?;
    let folder = |p: &PathBuf| p.is_dir();
    let paths = entries.filter_map(|e| e.ok()).map(|e| e.path()).filter(folder);
    Ok(paths.filter_map(|p| Some(p.file_name()?.to_str()?.to_owned())).collect())
}

/// `"median":{...,"point_estimate":X` of criterion's estimates.
fn median(text: &str) -> Option<f64> {
    let after = text.split_once("\"median\"")?.1.split_once("\"point_estimate\":")?.1;
    after.split([',', '}']).next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_found() {
        let text = r#"{"mean":{"point_estimate":1.0},"median":{"confidence_interval":{"lower_bound":2.0},"point_estimate":3.5,"standard_error":0}}"#;
        assert_eq!(median(text), Some(3.5));
        assert_eq!(median("{}"), None);
    }
}

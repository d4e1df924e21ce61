//! What the pages show must be true: code stands in an example, links lead somewhere. Commands print
//! what stands there: that is a test, `cargo test -p softvfio --test commands`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{cargo, quiet, root};
use crate::steps::Outcome;

/// Package and example.
const EXAMPLES: &[(&str, &str)] = &[("softvfio-iommu", "map"), ("softvfio-vfio", "serve")];

/// The example that the README quotes.
const QUOTED: &str = "crates/iommu/examples/map.rs";

/// Runs the examples, and looks at the pages.
pub(crate) fn check() -> Result<Outcome, String> {
    for (package, name) in EXAMPLES {
        let printed = quiet(&mut cargo(&["run", "--package", package, "--example", name]))?;
        if printed.trim().is_empty() {
            return Err(format!("example {name} of {package} printed nothing"));
        }
    }
    let readme = root().join("README.md");
    quotes(&read(&readme)?)?;
    let pages = pages()?;
    for page in &pages {
        links(page)?;
    }
    Ok(Outcome::Held(format!("{} run, {} pages", EXAMPLES.len(), pages.len())))
}

/// Every line of code of the README is one of the example.
fn quotes(readme: &str) -> Result<(), String> {
    let example = read(&root().join(QUOTED))?;
    for line in blocks(readme, "rust").flat_map(str::lines) {
        if !example.lines().any(|l| l == line) {
            return Err(format!("README.md quotes a line that {QUOTED} has not: {line}"));
        }
    }
    Ok(())
}

/// Relative links lead to files.
fn links(page: &Path) -> Result<(), String> {
    let text = read(page)?;
    let folder = page.parent().unwrap_or(page);
    for part in text.split("](").skip(1) {
        let target = part.split([')', '#']).next().unwrap_or_default();
        let relative = !target.is_empty() && !target.contains("://");
        if relative && !folder.join(target).exists() {
            return Err(format!("{}: a link to {target}, which is not there", page.display()));
        }
    }
    Ok(())
}

/// The pages at the top and in docs/.
fn pages() -> Result<Vec<PathBuf>, String> {
    let mut pages = Vec::new();
    for folder in [root(), root().join("docs")] {
        let broken = |e| format!("{}: {e}", folder.display());
        for entry in fs::read_dir(&folder).map_err(broken)? {
            let path = entry.map_err(broken)?.path();
            if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    Ok(pages)
}

/// What stands between ```` ```kind ```` and the next fence.
fn blocks<'a>(text: &'a str, kind: &str) -> impl Iterator<Item = &'a str> {
    let open = format!("```{kind}\n");
    let starts: Vec<usize> = text.match_indices(&open).map(|(at, _)| at + open.len()).collect();
    starts.into_iter().filter_map(move |at| text[at..].split("```").next())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

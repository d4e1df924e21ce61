//! `abi/coverage.toml` against the names of the crate, and the README's table against the file.
//!
//! `UPDATE=1 cargo test -p softvfio-uapi --test coverage` rewrites the table.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
};

use softvfio_uapi::{
    Errno,
    names::{self, Family, NameKind},
};
use toml::{Table, Value};

const BEGIN: &str = "<!-- coverage -->";
const END: &str = "<!-- /coverage -->";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// One row: how a name is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    /// `supported`, `absent`, `ignored` or the name of an error.
    answer: String,
    note: String,
}

/// (section, C name) -> row.
type Rows = BTreeMap<(String, String), Row>;

/// `container.ioctl`, `device.flag.vfio_irq_set`.
fn section(family: &Family) -> String {
    let mut section = format!("{}.{}", family.fd, family.kind.name());
    if !family.structure.is_empty() {
        section = format!("{section}.{}", family.structure);
    }
    section
}

/// All rows of the file; a key used twice is an error of TOML's already.
fn rows() -> Rows {
    let text = fs::read_to_string(root().join("abi/coverage.toml")).unwrap();
    let mut rows = Rows::new();
    collect("", &text.parse().unwrap(), &mut rows);
    rows
}

/// A table of tables is a section, any other a row.
fn collect(path: &str, table: &Table, rows: &mut Rows) {
    for (name, value) in table {
        let value = value.as_table().unwrap_or_else(|| panic!("{path}.{name} is no table"));
        if value.values().any(Value::is_table) {
            let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            collect(&inner, value, rows);
        } else {
            rows.insert((path.to_owned(), name.clone()), row(name, value));
        }
    }
}

/// Exactly one of `status` and `errno`, and a note of one line.
fn row(name: &str, table: &Table) -> Row {
    let text = |key| table.get(key).map(|value| value.as_str().expect(name).to_owned());
    let answer = match (text("status"), text("errno")) {
        (Some(status), None) => {
            let known = ["supported", "absent", "ignored"];
            assert!(known.contains(&status.as_str()), "{name}: status {status}");
            status
        }
        (None, Some(errno)) => {
            assert!(Errno::from_name(&errno).is_some(), "{name}: errno {errno}");
            errno
        }
        _ => panic!("{name} needs one of status and errno"),
    };
    let note = text("note").unwrap_or_else(|| panic!("{name} needs a note"));
    assert!(!note.is_empty() && !note.contains('\n'), "{name}: a note is one line");
    assert_eq!(table.len(), 2, "{name} has an unknown key");
    Row { answer, note }
}

#[test]
fn every_name_has_a_row_and_every_row_a_name() {
    let in_file: BTreeSet<_> = rows().into_keys().collect();
    let in_crate: BTreeSet<_> = names::ALL
        .iter()
        .flat_map(|family| {
            family.names.iter().map(|(name, _)| (section(family), (*name).to_owned()))
        })
        .collect();
    let only_file: Vec<_> = in_file.difference(&in_crate).collect();
    let only_crate: Vec<_> = in_crate.difference(&in_file).collect();
    assert!(
        only_file.is_empty() && only_crate.is_empty(),
        "only in abi/coverage.toml: {only_file:?}; only in the crate: {only_crate:?}"
    );
}

/// The longest start the names share, up to and including an underscore.
fn common_prefix<'a>(names: &[&'a str]) -> &'a str {
    let Some((first, rest)) = names.split_first() else { return "" };
    let shared = |end: &usize| rest.iter().all(|name| name.starts_with(&first[..*end]));
    let end = first.match_indices('_').map(|(at, _)| at + 1).rfind(shared);
    &first[..end.unwrap_or(0)]
}

fn kind_in_words(kind: NameKind) -> &'static str {
    match kind {
        NameKind::Ioctl => "requests",
        NameKind::Extension => "extensions",
        NameKind::Flag => "flags",
        NameKind::Capability => "capabilities",
        NameKind::Feature => "features",
        NameKind::Region => "regions",
        NameKind::Irq => "interrupts",
    }
}

/// One line per family: what is supported, and what every other name is answered.
fn markdown(rows: &Rows) -> String {
    let mut table = String::from("| fd | names | supported | otherwise |\n|---|---|---|---|\n");
    for family in names::ALL {
        let names: Vec<&str> = family.names.iter().map(|(name, _)| *name).collect();
        // A prefix is worth cutting off several names, not one.
        let prefix = if names.len() > 1 { common_prefix(&names) } else { "" };

        // In the order answers first appear, so that neither side's sorting shows.
        let mut answers: Vec<(&str, Vec<String>)> = Vec::new();
        for name in &names {
            let row = &rows[&(section(family), (*name).to_owned())];
            let short = format!("`{}`", &name[prefix.len()..]);
            match answers.iter_mut().find(|(answer, _)| *answer == row.answer) {
                Some((_, names)) => names.push(short),
                None => answers.push((&row.answer, vec![short])),
            }
        }
        let (supported, otherwise): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|(answer, _)| *answer == "supported");
        let supported: Vec<_> = supported.into_iter().map(|(_, names)| names.join(" ")).collect();
        let otherwise: Vec<_> = otherwise
            .into_iter()
            .map(|(answer, names)| format!("{answer}: {}", names.join(" ")))
            .collect();

        let mut label = kind_in_words(family.kind).to_owned();
        if !family.structure.is_empty() {
            label = format!("`{}` {label}", family.structure);
        }
        if !prefix.is_empty() {
            label = format!("{label} `{prefix}*`");
        }
        table += &format!(
            "| {} | {label} | {} | {} |\n",
            family.fd,
            supported.join(" "),
            otherwise.join("; ")
        );
    }
    table
}

/// The README with `table` between its markers.
fn with_table(readme: &str, table: &str) -> Result<String, &'static str> {
    let (before, rest) = readme.split_once(BEGIN).ok_or("README.md has no <!-- coverage -->")?;
    let (_, after) = rest.split_once(END).ok_or("README.md has no <!-- /coverage -->")?;
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

#[test]
fn the_readme_table_is_current() {
    let path = root().join("README.md");
    let Ok(readme) = fs::read_to_string(&path) else {
        return; // Not written yet: nothing to compare.
    };
    let current = with_table(&readme, &markdown(&rows())).unwrap();
    if env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs::write(path, current).unwrap();
    } else {
        assert_eq!(readme, current, "run again with UPDATE=1");
    }
}

#[test]
fn the_table_replaces_what_is_between_the_markers() {
    let readme = format!("a\n{BEGIN}\nold\n{END}\nb\n");
    let new = with_table(&readme, "new\n").unwrap();
    assert_eq!(new, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
    assert_eq!(with_table(&new, "new\n").as_ref(), Ok(&new));
    assert!(with_table("no markers", "new\n").is_err());
    assert!(with_table(BEGIN, "new\n").is_err());
}

#[test]
fn prefixes_end_at_an_underscore() {
    assert_eq!(common_prefix(&["A_BC_D", "A_BC_E"]), "A_BC_");
    assert_eq!(common_prefix(&["A_BC", "A_BD"]), "A_");
    assert_eq!(common_prefix(&["AB", "AC"]), "");
}

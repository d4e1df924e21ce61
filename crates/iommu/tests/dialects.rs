//! `docs/dialects.md` against [`Dialect`]: the table there is made from the fields' own words.
//!
//! `UPDATE=1 cargo test -p softvfio-iommu --test dialects` rewrites it.

use std::{env, fs, path::PathBuf};

use softvfio_iommu::Dialect;

const SOURCE: &str = include_str!("../src/dialect.rs");
const BEGIN: &str = "<!-- dialects -->";
const END: &str = "<!-- /dialects -->";

/// The fields of the structure that are yes or no, with their documentation on one line.
fn fields() -> Vec<(String, String)> {
    let body = SOURCE.split_once("pub struct Dialect {").expect("the structure").1;
    let (body, _) = body.split_once("\n}").expect("its end");
    let (mut fields, mut words) = (Vec::new(), Vec::new());
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            words.push(text.trim());
        } else if let Some(field) = line.strip_prefix("pub ") {
            let (name, kind) = field.split_once(": ").expect("a field");
            if kind == "bool," {
                fields.push((name.to_owned(), words.join(" ").replace('|', "\\|")));
            }
            words.clear();
        }
    }
    fields
}

/// Whether `dialect` has the difference `field`.
fn has(dialect: &Dialect, field: &str) -> bool {
    let shown = format!("{dialect:?}");
    let (_, value) = shown.split_once(&format!(" {field}: ")).expect(field);
    value.starts_with("true")
}

fn table() -> String {
    let names: Vec<_> = Dialect::ALL.iter().map(|d| d.name).collect();
    let mut table = format!("| difference | {} | what it says |\n|---|", names.join(" | "));
    table += &"---|".repeat(names.len() + 1);
    table.push('\n');
    for (field, words) in fields() {
        let marks: Vec<_> =
            Dialect::ALL.iter().map(|d| if has(d, &field) { "yes" } else { "no" }).collect();
        table += &format!("| `{field}` | {} | {words} |\n", marks.join(" | "));
    }
    table
}

#[test]
fn every_field_is_found() {
    let shown = format!("{:?}", Dialect::default());
    assert_eq!(fields().len(), shown.matches(": true").count() + shown.matches(": false").count());
    assert!(fields().iter().all(|(_, words)| !words.is_empty()));
}

#[test]
fn the_table_is_current() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/dialects.md");
    let page = fs::read_to_string(&path).expect("docs/dialects.md");
    let (before, rest) = page.split_once(BEGIN).expect("the table's begin");
    let (_, after) = rest.split_once(END).expect("the table's end");
    let current = format!("{before}{BEGIN}\n{}{END}{after}", table());
    if env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs::write(path, current).expect("docs/dialects.md");
    } else {
        assert_eq!(page, current, "run again with UPDATE=1");
    }
}

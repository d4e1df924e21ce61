//! Every refusal of the recorded traces comes from a check that is written down.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use iommu::Dialect;
use softvfio_trace::{Options, Reader, Session};

fn traces(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(traces(&path));
        } else if path.extension().is_some_and(|e| e == "jsonl") {
            found.push(path);
        }
    }
    found
}

#[test]
fn refusals_of_recorded_requests_have_their_check_under_every_kernel() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut seen = 0;
    for file in traces(&folder) {
        for dialect in Dialect::ALL {
            let options = Options { dialect: Some(dialect), ..Options::default() };
            let reader = BufReader::new(File::open(&file).unwrap());
            let reader = Reader::new(reader, file.to_str().unwrap());
            let refused = super::refused(Session::start(reader, &options).unwrap());
            seen += refused.iter().map(super::Refused::failed).count();
        }
    }
    assert!(seen > 3000, "{seen} refusals");
}

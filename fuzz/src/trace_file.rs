//! Bytes as a trace: the reader, then the replayer.

use std::sync::LazyLock;

use trace::{Options, Outcome, Reader, Session, Step, Verdict};

/// Machines for inputs that begin with the letter: mutations then go into requests, not into the
/// header.
static MACHINES: LazyLock<[(u8, Options); 2]> = LazyLock::new(|| {
    [
        (b'x', on(include_str!("../machines/x86.json"))),
        (b'a', on(include_str!("../machines/arm.json"))),
    ]
});

fn on(header: &str) -> Options {
    let line = Reader::new(header.as_bytes(), "machine").read_line();
    let line = line.expect("a header").expect("a header");
    Options { machine: Some(line.to_map()), ..Options::default() }
}

/// Requests of one trace at most.
const MAX_REQUESTS: usize = 200;

/// Reads and replays; panics when our own answers, read back, are not matched by our answers.
pub fn run(bytes: &[u8]) {
    let machine = MACHINES.iter().find(|(letter, _)| bytes.first() == Some(letter));
    let (text, options) = match machine {
        Some((_, options)) => ([b"{}", &bytes[1..]].concat(), options),
        None => (bytes.to_vec(), &Options::default()),
    };
    let Some((header, outcomes)) = replay(&text, options) else { return };
    let mut own = header;
    for outcome in &outcomes {
        own.push('\n');
        own.push_str(&trace::answered(outcome));
    }
    let (_, again) = replay(own.as_bytes(), options).expect("what was replayed is replayed again");
    assert_eq!(again.len(), outcomes.len());
    for (first, second) in outcomes.iter().zip(&again) {
        assert_eq!(first.got, second.got, "two answers to {}", first.text);
        // Without any answer: there is no such operation.
        let known = !first.got.is_empty();
        assert_eq!(matches!(second.verdict, Verdict::Matched), known, "{:?}", second.verdict);
    }
}

/// The header and every request up to the first line that cannot be read; `None` without a usable
/// header.
fn replay(text: &[u8], options: &Options) -> Option<(String, Vec<Outcome>)> {
    let mut session = match Session::start(Reader::new(text, "fuzz"), options) {
        Ok(session) => session,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return None;
        }
    };
    let mut outcomes = Vec::new();
    while outcomes.len() < MAX_REQUESTS {
        match session.step() {
            Ok(Some(Step::Request(outcome))) => outcomes.push(*outcome),
            Ok(Some(Step::Note(_))) => {}
            Ok(None) => break,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                break;
            }
        }
    }
    Some((session.header().to_owned(), outcomes))
}

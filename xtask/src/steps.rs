//! The steps of `cargo xtask test`.

use std::env;
use std::time::Instant;

use crate::command::{cargo, loud, quiet};
use crate::{fuzz, nostd, pages, traces};

/// How a step went that did not fail.
pub(crate) enum Outcome {
    /// It held; perhaps a few words on what was seen.
    Held(String),
    /// It was not run, and why.
    Skipped(String),
}

/// One step.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    run: fn() -> Result<Outcome, String>,
}

/// Every step; cheap ones first.
pub(crate) const ALL: &[Step] = &[
    Step { name: "fmt", run: fmt },
    Step { name: "clippy", run: clippy },
    Step { name: "unit", run: unit },
    Step { name: "planted", run: planted },
    Step { name: "pages", run: pages::check },
    Step { name: "doc", run: doc },
    Step { name: "nostd", run: nostd::gate },
    Step { name: "traces", run: traces::replay },
    Step { name: "fuzz", run: fuzz::smoke },
];

/// Runs steps until one fails, and says how each went.
pub(crate) fn run(steps: &[Step]) -> Result<(), String> {
    let start = Instant::now();
    let mut summary = String::new();
    for step in steps {
        let began = Instant::now();
        let outcome = (step.run)();
        let seconds = began.elapsed().as_secs_f64();
        let (line, failed) = match outcome {
            Ok(Outcome::Held(seen)) => (format!("ok       {seconds:6.1} s  {seen}"), None),
            Ok(Outcome::Skipped(why)) => (format!("skipped: {why}"), None),
            Err(why) => (format!("FAILED   {seconds:6.1} s  {why}"), Some(why)),
        };
        let line = format!("xtask: {:<9}{}", step.name, line.trim_end());
        println!("{line}");
        if failed.is_some() {
            return Err(format!("step {} failed", step.name));
        }
        summary.push_str(&line);
        summary.push('\n');
    }
    if steps.len() > 1 {
        let seconds = start.elapsed().as_secs_f64();
        print!("\nxtask: all {} steps\n{summary}xtask: {seconds:.1} s in all\n", steps.len());
    }
    Ok(())
}

/// Runs the one step of that name.
pub(crate) fn run_named(name: &str) -> Result<(), String> {
    match ALL.iter().position(|step| step.name == name) {
        Some(at) => run(&ALL[at..=at]),
        None => Err(format!("no command {name}")),
    }
}

/// Skips a step for want of something that `.ci/run` installs: in CI that is a failure.
pub(crate) fn missing(what: &str) -> Result<Outcome, String> {
    if env::var_os("CI").is_some_and(|ci| ci == "true") {
        return Err(format!("{what} is missing, which .ci/run installs"));
    }
    Ok(Outcome::Skipped(format!("{what} is not installed")))
}

fn held() -> Result<Outcome, String> {
    Ok(Outcome::Held(String::new()))
}

fn fmt() -> Result<Outcome, String> {
    for manifest in ["Cargo.toml", nostd::MANIFEST, fuzz::MANIFEST] {
        quiet(&mut cargo(&["fmt", "--all", "--check", "--manifest-path", manifest]))?;
    }
    held()
}

fn clippy() -> Result<Outcome, String> {
    let all = ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    quiet(&mut cargo(&all))?;
    quiet(&mut nostd::clippy())?;
    held()
}

/// Its output is shown: these are the project's tests.
fn unit() -> Result<Outcome, String> {
    quiet(&mut cargo(&["test", "--workspace", "--no-run"]))?;
    loud(&mut cargo(&["test", "--workspace"]))?;
    held()
}

/// The engine's models catch each bug that can be planted, of mappings and of windows.
fn planted() -> Result<Outcome, String> {
    let mut command = cargo(&["test", "--package", "softvfio-iommu", "--features", "planted"]);
    command.args(["--test", "model", "--test", "windows", "every_planted_bug"]);
    let printed = quiet(command.args(["--", "--nocapture"]))?;
    if printed.matches("test result: ok. 1 passed").count() != 2 {
        return Err("the two tests of planted bugs were not run".into());
    }
    held()
}

fn doc() -> Result<Outcome, String> {
    let mut command = cargo(&["doc", "--workspace", "--no-deps"]);
    quiet(command.env("RUSTDOCFLAGS", "-D warnings"))?;
    held()
}

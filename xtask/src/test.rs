//! `cargo xtask test`: everything a change must pass, the quick and telling things first.

use anyhow::Result;

use crate::command::{cargo, step};
use crate::{setup, tidy};

pub fn main(arguments: &[&str]) -> Result<()> {
    let arguments = arguments.strip_prefix(&["--"]).unwrap_or(arguments);
    setup::main(&["--tests"])?;
    step("formatting", cargo()?.args(["fmt", "--all", "--check"]))?;
    tidy::main(&[])?;
    let clippy = ["clippy", "--quiet", "--workspace", "--all-targets", "--locked"];
    step("clippy", cargo()?.args(clippy).args(["--", "-D", "warnings"]))?;
    let deny = ["deny", "--all-features", "--log-level", "warn", "check", "--hide-inclusion-graph"];
    step("dependencies", cargo()?.args(deny).args(["bans", "licenses", "sources"]))?;
    step("build", cargo()?.args(["build", "--quiet", "--workspace", "--locked"]))?;
    let documented = ["test", "--quiet", "--workspace", "--locked", "--doc"];
    step("examples in the documentation", cargo()?.args(documented))?;
    // Last, so that its summary ends the output.
    let tests = ["nextest", "run", "--workspace", "--locked"];
    step("tests", cargo()?.args(tests).args(arguments))
}

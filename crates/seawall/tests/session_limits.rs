//! Settings of a role and a database that would end a session: none of them ends Seawall's.

mod support;

use anyhow::{Context, Result, ensure};
use seawall_testkit::{PgBin, PgCluster};
use support::Protected;

/// What a role can be given that cuts a session short, and since which major there is such a thing.
const LIMITS: [(u16, &str); 6] = [
    (12, "statement_timeout"),
    (12, "lock_timeout"),
    (12, "idle_in_transaction_session_timeout"),
    (12, "tcp_user_timeout"),
    (14, "idle_session_timeout"),
    (17, "transaction_timeout"),
];

/// `check`, and a backup that waits for a spread checkpoint, as a role of which everything takes
/// longer than it may.
fn works_with_limits(major: u16) -> Result<()> {
    let builder = PgCluster::builder(major)
        .config("autovacuum", "off")
        .config("checkpoint_timeout", "30s")
        .config("checkpoint_completion_target", "0.1");
    let house = Protected::with(builder, false)?;
    house.pg.psql("CREATE ROLE hurried SUPERUSER LOGIN; CREATE TABLE t AS SELECT 1")?;
    for (_, name) in LIMITS.iter().filter(|(since, _)| *since <= major) {
        house.pg.psql(&format!("ALTER ROLE hurried SET {name} = 1"))?;
        house.pg.psql(&format!("ALTER ROLE hurried IN DATABASE postgres SET {name} = 1"))?;
    }
    // The role of the configuration itself, by hand: another one set up the archive.
    let text = std::fs::read_to_string(&house.places.config)?;
    let hurried = text.replace("user=postgres", "user=hurried");
    ensure!(hurried != text, "{text}");
    std::fs::write(&house.places.config, hurried)?;

    let check = house.command(["check", "--json"]).run()?.json()?;
    let proven = check["proven"].to_string();
    ensure!(proven.contains("as hurried") && proven.contains("WAL arrives"), "{check}");
    house.command(["backup", "--spread-checkpoint"]).succeed()?;
    house.command(["check", "--json"]).run()?.json()?;
    Ok(())
}

fn for_majors(wanted: impl Fn(u16) -> bool) -> Result<()> {
    let majors = PgBin::installed().into_iter().filter(|major| wanted(*major));
    for major in majors {
        works_with_limits(major).with_context(|| format!("PostgreSQL {major}"))?;
    }
    Ok(())
}

#[test]
fn a_role_s_limits_end_nothing_on_12_to_14() -> Result<()> {
    for_majors(|major| major <= 14)
}

#[test]
fn a_role_s_limits_end_nothing_on_15_and_16() -> Result<()> {
    for_majors(|major| (15..=16).contains(&major))
}

#[test]
fn a_role_s_limits_end_nothing_on_17_and_later() -> Result<()> {
    for_majors(|major| major >= 17)
}

//! `seawall demo`: the story on this machine. Every step runs the program's own commands, as a user
//! would type them, and shows them.

mod narrator;
mod place;
mod server;
mod traffic;

use std::time::{Duration, Instant};

use seawall_core::{Code, Error, Result};

use crate::args::DemoArgs;
use crate::exit::Outcome;
use crate::render;

use narrator::Narrator;
use place::DemoPlace;
use server::DemoServer;
use traffic::{Ledger, Traffic};

/// How long traffic flows before and after the backup.
const TRAFFIC: Duration = Duration::from_secs(3);

/// How long a segment may take to be archived, and a server to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the command.
///
/// # Errors
/// Whatever a step ran into. The directory then stays, so that it can be looked at.
pub fn main(args: &DemoArgs) -> Result<Outcome> {
    let began = Instant::now();
    let programs = server::find_newest()?;
    let place = DemoPlace::prepare(args.dir.as_deref(), args.owner.as_deref())?;
    let mut narrator = Narrator::new(place.directory());
    narrator.title(&format!("Seawall demo with PostgreSQL {}", programs.major))?;
    let server = DemoServer::new(programs, &place);
    let told = tell(&place, &server, &mut narrator);
    if args.keep && told.is_ok() {
        narrator.kept(&place, &server)?;
    } else {
        server.stop_all(&place);
    }
    match told {
        Ok(()) => {
            if !args.keep {
                place.remove()?;
            }
            narrator.end(began.elapsed(), args.keep)?;
            Ok(Outcome::Done)
        }
        Err(error) => {
            eprintln!("the demo's files and logs are in {}", place.directory().display());
            Err(error)
        }
    }
}

fn tell(place: &DemoPlace, server: &DemoServer, narrator: &mut Narrator) -> Result<()> {
    narrator.step("A database with live traffic")?;
    server.create(place, narrator)?;
    server.sql(traffic::TABLE)?;
    let traffic = Traffic::start(&server.connection()?);
    narrator.say("3 writers commit orders; a ledger notes every commit PostgreSQL acknowledged")?;

    narrator.step("Protect it")?;
    let sql = narrator.seawall(place, &place.init_arguments(server.conninfo()))?;
    for statement in sql.lines() {
        narrator.quote(statement.split("; -- ").next().unwrap_or(statement))?;
        server.sql(statement)?;
    }
    narrator.say("archive_mode wants a restart; the writers connect again")?;
    server.restart()?;

    narrator.step("Back it up while orders come in")?;
    std::thread::sleep(TRAFFIC);
    narrator.seawall(place, &["backup", "main"])?;
    narrator.seawall(place, &["list", "main"])?;
    std::thread::sleep(TRAFFIC);

    narrator.step("The accident")?;
    let xid = server.drop_table()?;
    let ledger = traffic.finish()?;
    narrator.quote("DROP TABLE shop.orders")?;
    narrator.say(&format!("transaction {xid}; {} acknowledged orders are gone", ledger.len()))?;
    server.archive_now(PATIENCE)?;
    narrator.say("the WAL of it has been archived")?;

    narrator.step("Back to just before it")?;
    let restoring = Instant::now();
    narrator.seawall(place, &place.restore_arguments(xid, server.free_port()?))?;
    let took = restoring.elapsed();

    narrator.step("Row by row")?;
    let restored = server.read_restored(place)?;
    prove(&ledger, &restored, narrator)?;
    narrator.say(&format!("restored and recovered in {}", render::duration(took)))?;
    narrator.seawall(place, &["verify"]).map(drop)
}

/// The restored table must be the ledger, no row more and no row less.
fn prove(ledger: &Ledger, restored: &Ledger, narrator: &Narrator) -> Result<()> {
    let missing = ledger.missing_from(restored);
    let extra = restored.missing_from(ledger);
    narrator.row("acknowledged", ledger.len(), &ledger.digest())?;
    narrator.row("restored", restored.len(), &restored.digest())?;
    if missing == 0 && extra == 0 && !ledger.is_empty() {
        return narrator.good("every acknowledged order is back, and nothing else");
    }
    Err(Error::new(
        Code::Internal,
        format!("{missing} acknowledged orders are missing, {extra} were never acknowledged"),
    ))
}

//! A time that is typed as a target is the moment that PostgreSQL reads in the same words.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use seawall_engine::restore::Point;
use seawall_testkit::{PgBin, PgCluster};

/// The zones of machines whose own abbreviations are others than PostgreSQL's, and of some where
/// they are the same.
const ZONES: [&str; 7] = [
    "UTC",
    "Europe/Berlin",
    "Europe/Dublin",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Shanghai",
    "Asia/Kathmandu",
];

/// Winter and summer of both hemispheres, and nights in which clocks are changed.
const MOMENTS: [&str; 4] =
    ["2026-01-15 12:00:00", "2026-07-15 12:00:00", "2026-03-29 02:30:00", "2026-10-25 02:30:00"];

const FORMS: [&str; 35] = [
    "2026-07-15 12:00:00.123 UTC",
    "2026-07-15 12:00:00.123456 +0545",
    "2026-07-15 12:00:00.5 cest",
    "2026-07-15 12:00:00CEST",
    "2026-07-15 12:00:00 +02",
    "2026-07-15 12:00:00+2",
    "2026-07-15 12:00:00 +545",
    "2026-07-15 12:00:00 -03:30",
    "2026-07-15 12:00:00+05:45:30",
    "2026-07-15 12:00:00 -15:59",
    "2026-07-15 12:00:00 -16",
    "2026-07-15 12:00:00z",
    "2026-07-15T12:00:00Z",
    "2026-07-15t12:00:00.25",
    "2026-07-15 T12:00",
    "2026-07-15  8:00",
    "2026-7-5 8:00",
    "20260715T080000Z",
    "20260715T0800",
    "2026-07-15",
    "2026-07-15 UTC",
    "2026-07-15 12:00 America/New_York",
    "2026-07-15 12:00 america/new_york",
    "2026-07-15T12:00:00[America/New_York]",
    "2026-07-15 12:00 EST5EDT",
    "2026-07-15 12:00 Etc/GMT+3",
    "2026-07-15 12:00 UTC+3",
    "2026-07-15 12:00:60",
    "2026-07-15 24:00:00",
    "2026-02-29 12:00",
    "now",
    "today",
    "today 00:00",
    "yesterday 8:00",
    "yesterday 23:59:59.999 UTC",
];

/// The abbreviations in the server's own list, and the zone that those have which changed.
fn abbreviations(bin: &PgBin) -> Result<Vec<(String, Option<String>)>> {
    let set = "timezonesets/Default";
    let packaged = format!("/usr/share/postgresql/{}/{set}", bin.major());
    let beside = bin.directory().with_file_name("share").join("postgresql").join(set);
    let text = std::fs::read_to_string(&beside).or_else(|_| std::fs::read_to_string(packaged))?;
    let entry = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (word, meaning) = (words.next()?, words.next()?);
        let zone = meaning.parse::<i32>().is_err().then(|| meaning.to_owned());
        Some((word.to_owned(), zone))
    };
    let entries: Vec<_> = text.lines().filter_map(entry).collect();
    ensure!(entries.len() > 150, "{} abbreviations", entries.len());
    Ok(entries)
}

/// Those that mean an offset, or a zone whose clocks this server and this machine agree about: they
/// carry the time zone database of different years.
fn agreed(pg: &PgCluster) -> Result<Vec<String>> {
    let (by_zone, fixed): (Vec<_>, Vec<_>) =
        abbreviations(pg.bin())?.into_iter().partition(|(_, zone)| zone.is_some());
    let in_zone = |(_, zone): &(String, Option<String>)| {
        MOMENTS.map(|moment| format!("{moment} {}", zone.as_deref().unwrap_or_default()))
    };
    let texts: Vec<String> = by_zone.iter().flat_map(in_zone).collect();
    let (now, theirs) = as_postgres_reads(pg, "UTC", &texts)?;
    let agrees = |(text, theirs): (&String, &Option<i128>)| {
        let ours = Point::parse(text, &TimeZone::UTC, now);
        matches!((ours, theirs), (Ok(Point::Time(ours)), Some(theirs)) if microseconds(ours) == *theirs)
    };
    let verdicts: Vec<bool> = texts.iter().zip(&theirs).map(agrees).collect();
    let of_zones = by_zone.into_iter().zip(verdicts.chunks(MOMENTS.len()));
    let agreed = of_zones.filter(|(_, verdicts)| verdicts.iter().all(|agrees| *agrees));
    Ok(fixed.into_iter().chain(agreed.map(|(entry, _)| entry)).map(|(word, _)| word).collect())
}

fn microseconds(time: Timestamp) -> i128 {
    time.as_nanosecond().div_euclid(1000)
}

/// What the server makes of each text, in microseconds, and its clock as it did.
fn as_postgres_reads(
    pg: &PgCluster,
    zone: &str,
    texts: &[String],
) -> Result<(Timestamp, Vec<Option<i128>>)> {
    let array: Vec<String> = texts.iter().map(|text| format!("'{text}'")).collect();
    let rows = pg.psql(&format!(
        "SET timezone = '{zone}';
         CREATE FUNCTION pg_temp.read(text) RETURNS text LANGUAGE plpgsql AS
         $$ BEGIN RETURN extract(epoch FROM date_trunc('second', $1::timestamptz))::bigint * 1000000
             + extract(microseconds FROM $1::timestamptz)::bigint % 1000000;
         EXCEPTION WHEN others THEN RETURN 'refused'; END $$;
         SELECT pg_temp.read(text) FROM
         unnest(ARRAY['now', {}]) WITH ORDINALITY AS t (text, n) ORDER BY n",
        array.join(", ")
    ))?;
    let read = |row: &str| (row != "refused").then(|| row.parse::<i128>()).transpose();
    let mut read: Vec<Option<i128>> = rows.lines().map(read).collect::<Result<_, _>>()?;
    ensure!(read.len() == texts.len() + 1, "{rows}");
    let now = read.remove(0).context("now")?;
    Ok((Timestamp::from_microsecond(i64::try_from(now)?)?, read))
}

#[test]
fn a_time_means_what_it_means_to_postgresql_or_is_refused() -> Result<()> {
    for major in PgBin::installed() {
        let pg = PgCluster::builder(major).without_fsync().start()?;
        let words = agreed(&pg)?;
        ensure!(words.len() > 170, "{major}: {} abbreviations", words.len());
        let mut texts: Vec<String> = FORMS.iter().map(|form| (*form).to_owned()).collect();
        for moment in MOMENTS {
            texts.push(moment.to_owned());
            texts.extend(words.iter().map(|word| format!("{moment} {word}")));
        }
        for zone in ZONES {
            let (now, theirs) = as_postgres_reads(&pg, zone, &texts)?;
            let local = TimeZone::get(zone)?;
            let (mut both, mut wrong) = (0, Vec::new());
            for (text, theirs) in texts.iter().zip(theirs) {
                let ours = Point::parse(text, &local, now);
                if let (Some(theirs), Ok(Point::Time(ours))) = (theirs, ours) {
                    both += 1;
                    if microseconds(ours) != theirs {
                        wrong.push(format!("{text} is {theirs} µs, and not {ours}"));
                    }
                }
            }
            ensure!(wrong.is_empty(), "{major}, {zone}: {wrong:#?}");
            ensure!(both * 10 > texts.len() * 9, "{major}, {zone}: {both} of {}", texts.len());
        }
    }
    Ok(())
}

//! What a server does, one kind of thing at a time.
//!
//! In the SQL `:c` is the chapter's number and `:n` the number of rows.

use anyhow::Result;
use seawall_testkit::PgCluster;
use seawall_testkit::faults::Random;

use crate::indexes;

/// One kind of thing that a server does, with so many rows, in the chapter of that number.
pub type Act = fn(&PgCluster, &mut Random, rows: u64, chapter: u64) -> Result<()>;

pub const ACTS: [(&str, Act); 25] = [
    ("btree", |server, _, n, c| play(server, indexes::BTREE, n, c)),
    ("hash", |server, _, n, c| play(server, indexes::HASH, n, c)),
    ("gin", |server, _, n, c| play(server, indexes::GIN, n, c)),
    ("gist", |server, _, n, c| play(server, indexes::GIST, n, c)),
    ("spgist", |server, _, n, c| play(server, indexes::SPGIST, n, c)),
    ("brin", |server, _, n, c| play(server, indexes::BRIN, n, c)),
    ("bloom", bloom),
    ("prepared transactions", |server, _, n, c| play(server, PREPARED, n, c)),
    ("subtransactions", |server, _, n, c| play(server, SUBTRANSACTIONS, n, c)),
    ("sequences", |server, _, n, c| play(server, SEQUENCES, n, c)),
    ("rows", |server, _, n, c| play(server, ROWS, n, c)),
    ("rewrites", |server, _, n, c| play(server, REWRITES, n, c)),
    ("logical rewrite", |server, _, n, c| play(server, LOGICAL_REWRITE, n, c)),
    ("map", |server, _, n, c| play(server, "VACUUM FULL pg_class; REINDEX TABLE pg_class;", n, c)),
    ("tablespaces", tablespaces),
    ("databases", databases),
    ("multixacts", multixacts),
    ("toast", |server, _, n, c| play(server, TOAST, n, c)),
    ("freeze", |server, _, n, c| play(server, "VACUUM (FREEZE)", n, c)),
    ("messages", messages),
    ("backup", backup),
    ("copy", copy),
    ("compressed images", compressed_images),
    ("images to verify", images_to_verify),
    ("origins", |server, _, n, c| play(server, ORIGINS, n, c)),
];

const PREPARED: &str = "
CREATE TABLE two_:c (x int PRIMARY KEY);
BEGIN; INSERT INTO two_:c VALUES (1); SAVEPOINT a; INSERT INTO two_:c VALUES (2);
PREPARE TRANSACTION 'kept :c: it; subxacts';
BEGIN; SAVEPOINT b; INSERT INTO two_:c VALUES (3); CREATE TABLE gone_:c (x int);
PREPARE TRANSACTION 'dropped :c';
COMMIT PREPARED 'kept :c: it; subxacts';
ROLLBACK PREPARED 'dropped :c';
BEGIN; DROP TABLE two_:c; PREPARE TRANSACTION 'drops :c'; COMMIT PREPARED 'drops :c';
";

/// A few, some that nest, more than a backend keeps (64), and more than a page of the status log
/// holds (32768).
const SUBTRANSACTIONS: &str = "
CREATE TABLE sub_:c (x int);
BEGIN; INSERT INTO sub_:c VALUES (0); SAVEPOINT a; INSERT INTO sub_:c VALUES (1); SAVEPOINT b;
INSERT INTO sub_:c VALUES (2); ROLLBACK TO a; SAVEPOINT c; INSERT INTO sub_:c VALUES (3); COMMIT;
BEGIN; SAVEPOINT a; INSERT INTO sub_:c VALUES (4); ROLLBACK;
DO $$ BEGIN FOR i IN 1..200 LOOP
    BEGIN INSERT INTO sub_:c VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END;
END LOOP; END $$;
BEGIN; DO $$ BEGIN FOR i IN 1..33000 LOOP
    BEGIN INSERT INTO sub_:c VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END;
END LOOP; END $$; ROLLBACK;
";

const SEQUENCES: &str = "
CREATE SEQUENCE seq_:c; SELECT nextval('seq_:c') FROM generate_series(1, 100);
SELECT setval('seq_:c', 1000); ALTER SEQUENCE seq_:c RESTART WITH 5; DROP SEQUENCE seq_:c;
";

const ROWS: &str = "
CREATE TABLE rows_:c (id int PRIMARY KEY, t text) WITH (fillfactor = 50, autovacuum_enabled = off);
INSERT INTO rows_:c SELECT i, 'a' FROM generate_series(1, :n) i;
UPDATE rows_:c SET t = 'b' WHERE id % 2 = 0;
UPDATE rows_:c SET t = 'c' WHERE id % 2 = 0;
INSERT INTO rows_:c VALUES (1, 'again'), (-1, 'new') ON CONFLICT (id) DO UPDATE SET t = 'merged';
SELECT count(*) FROM (SELECT 1 FROM rows_:c WHERE id < 50 FOR UPDATE) AS s;
SELECT count(*) FROM rows_:c WHERE t = 'b';
DELETE FROM rows_:c WHERE id > :n / 2;
VACUUM rows_:c;
VACUUM (FREEZE) rows_:c;
CREATE UNLOGGED TABLE unlogged_:c (id int PRIMARY KEY, t text);
INSERT INTO unlogged_:c SELECT i, 'u' FROM generate_series(1, 100) i;
ALTER TABLE unlogged_:c SET LOGGED; ALTER TABLE unlogged_:c SET UNLOGGED;
CREATE TEMPORARY TABLE temporary_:c AS SELECT * FROM rows_:c;
";

const REWRITES: &str = "
CREATE TABLE ddl_:c AS SELECT i AS id, i::text AS t FROM generate_series(1, :n) i;
ALTER TABLE ddl_:c ADD COLUMN v double precision DEFAULT random();
ALTER TABLE ddl_:c ALTER COLUMN id TYPE bigint;
ALTER TABLE ddl_:c ADD PRIMARY KEY (id);
CLUSTER ddl_:c USING ddl_:c_pkey;
VACUUM FULL ddl_:c;
REINDEX TABLE ddl_:c;
REINDEX TABLE CONCURRENTLY ddl_:c;
CREATE MATERIALIZED VIEW mat_:c AS SELECT count(*) FROM ddl_:c;
REFRESH MATERIALIZED VIEW mat_:c;
ANALYZE ddl_:c;
CREATE TABLE part_:c (id int) PARTITION BY RANGE (id);
CREATE TABLE part_1_:c PARTITION OF part_:c FOR VALUES FROM (0) TO (10);
INSERT INTO part_:c VALUES (5);
ALTER TABLE part_:c DETACH PARTITION part_1_:c;
DELETE FROM ddl_:c WHERE id > 10;
VACUUM ddl_:c;
BEGIN; CREATE TABLE never_:c (x int); TRUNCATE ddl_:c; ROLLBACK;
TRUNCATE ddl_:c, part_1_:c;
DROP TABLE ddl_:c CASCADE;
";

/// A catalog rewritten while a logical slot needs to know where its rows go.
const LOGICAL_REWRITE: &str = "
SELECT pg_create_logical_replication_slot('slot_:c', 'pgoutput');
CREATE TABLE rewritten_:c (x int); ALTER TABLE rewritten_:c ADD COLUMN y int;
DROP TABLE rewritten_:c;
VACUUM FULL pg_attribute;
SELECT pg_drop_replication_slot('slot_:c');
";

const TOAST: &str = "
CREATE TABLE toast_:c (id int, t text, c text);
ALTER TABLE toast_:c ALTER COLUMN t SET STORAGE EXTERNAL;
INSERT INTO toast_:c SELECT i, repeat(md5(i::text), 1000 * (i % 10)),
    (SELECT string_agg(md5((i * 1000 + j)::text), '') FROM generate_series(1, 300) j)
    FROM generate_series(1, 40) i;
UPDATE toast_:c SET t = repeat('b', 100000) WHERE id % 4 = 0;
DELETE FROM toast_:c WHERE id % 3 = 0;
VACUUM toast_:c;
";

const ORIGINS: &str = "
SELECT pg_replication_origin_create('origin_:c');
SELECT pg_replication_origin_advance('origin_:c', '1/23');
CREATE TABLE origin_:c (x int);
SELECT pg_replication_origin_session_setup('origin_:c');
BEGIN; INSERT INTO origin_:c VALUES (1);
SELECT pg_replication_origin_xact_setup('1/5678', '2020-02-03 04:05:06.000007+00'); COMMIT;
BEGIN; SAVEPOINT s; INSERT INTO origin_:c VALUES (2);
SELECT pg_replication_origin_xact_setup('1/9ABC', '1999-01-01 00:00:00+00');
PREPARE TRANSACTION 'from elsewhere :c'; COMMIT PREPARED 'from elsewhere :c';
SELECT pg_replication_origin_session_reset();
SELECT pg_replication_origin_drop('origin_:c');
";

fn play(server: &PgCluster, sql: &str, rows: u64, chapter: u64) -> Result<()> {
    let sql = sql.replace(":c", &chapter.to_string()).replace(":n", &rows.to_string());
    server.psql(&sql).map(drop)
}

/// An extension's pages, where the extension is installed.
fn bloom(server: &PgCluster, _: &mut Random, rows: u64, chapter: u64) -> Result<()> {
    let available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'bloom'";
    if server.psql(available)? == "0" {
        return Ok(());
    }
    let sql = "
CREATE EXTENSION IF NOT EXISTS bloom;
CREATE TABLE bloom_:c (a int, b int);
CREATE INDEX bloom_i_:c ON bloom_:c USING bloom (a, b);
INSERT INTO bloom_:c SELECT i, i % 10 FROM generate_series(1, :n / 10) i;
DELETE FROM bloom_:c WHERE b < 5;
VACUUM bloom_:c;
";
    play(server, sql, rows, chapter)
}

fn tablespaces(server: &PgCluster, _: &mut Random, rows: u64, chapter: u64) -> Result<()> {
    let place = server.scratch().join(format!("space {chapter}"));
    server.owner().create_dir(&place, 0o700)?;
    let sql = format!(
        "CREATE TABLESPACE space_:c LOCATION '{}';
         CREATE TABLE in_space_:c TABLESPACE space_:c AS SELECT generate_series(1, 100) AS x;
         ALTER TABLE in_space_:c SET TABLESPACE pg_default;
         CREATE INDEX in_space_i_:c ON in_space_:c (x) TABLESPACE space_:c;
         DROP TABLE in_space_:c;
         DROP TABLESPACE space_:c;",
        place.display()
    );
    play(server, &sql, rows, chapter)
}

fn databases(server: &PgCluster, _: &mut Random, rows: u64, chapter: u64) -> Result<()> {
    let create = "
CREATE DATABASE logged_:c STRATEGY wal_log;
CREATE DATABASE copied_:c STRATEGY file_copy;
";
    play(server, create, rows, chapter)?;
    for strategy in ["logged", "copied"] {
        let name = format!("{strategy}_{chapter}");
        server.connection().psql_in(&name, "CREATE TABLE t AS SELECT 1")?;
    }
    play(server, "DROP DATABASE logged_:c; DROP DATABASE copied_:c;", rows, chapter)
}

/// Rows locked by several sessions at a time, and by one that changes them later.
fn multixacts(server: &PgCluster, _: &mut Random, rows: u64, chapter: u64) -> Result<()> {
    let table = format!("multi_{chapter}");
    server.psql(&format!(
        "CREATE TABLE {table} (id int PRIMARY KEY, v int);
         INSERT INTO {table} SELECT i, 0 FROM generate_series(1, 500) i;"
    ))?;
    let mut sessions = [
        server.connection().session()?,
        server.connection().session()?,
        server.connection().session()?,
    ];
    for (session, strength) in sessions.iter_mut().zip(["KEY SHARE", "SHARE", "KEY SHARE"]) {
        let lock = format!("SELECT 1 FROM {table} WHERE id < 100 FOR {strength}");
        session.run(&format!("BEGIN; SELECT count(*) FROM ({lock}) AS s"))?;
    }
    for session in &mut sessions {
        session.run("COMMIT")?;
    }
    // The lock follows the row to its newer version.
    let [changing, locking, _] = &mut sessions;
    changing.run(&format!("BEGIN; UPDATE {table} SET v = 1 WHERE id = 400"))?;
    locking.run(&format!("BEGIN; SELECT 1 FROM {table} WHERE id = 400 FOR KEY SHARE"))?;
    changing.run("COMMIT")?;
    locking.run("COMMIT")?;
    // A multixact for each row: more than a page of their members holds.
    let sql = "
DO $$ BEGIN
    PERFORM 1 FROM multi_:c FOR KEY SHARE;
    FOR i IN 1..500 LOOP
        BEGIN UPDATE multi_:c SET v = i WHERE id = i;
        EXCEPTION WHEN division_by_zero THEN NULL; END;
    END LOOP;
END $$;
VACUUM (FREEZE) multi_:c;
";
    play(server, sql, rows, chapter)
}

fn messages(server: &PgCluster, random: &mut Random, rows: u64, chapter: u64) -> Result<()> {
    let mut sql = String::new();
    for transactional in ["true", "false", "true", "false"] {
        let bytes = random.below(300_000);
        sql.push_str(&format!(
            "SELECT pg_logical_emit_message({transactional}, 'note', repeat('m', {bytes}));\n"
        ));
    }
    play(server, &sql, rows, chapter)
}

fn backup(server: &PgCluster, _: &mut Random, rows: u64, chapter: u64) -> Result<()> {
    let sql = "
SELECT pg_create_restore_point('point :c; with: words');
SELECT pg_backup_start('backup', true);
SELECT count(*) FROM pg_backup_stop(false);
SELECT pg_switch_wal();
CHECKPOINT;
";
    play(server, sql, rows, chapter)
}

/// Rows that come in by `COPY`, many in a record.
fn copy(server: &PgCluster, _: &mut Random, rows: u64, chapter: u64) -> Result<()> {
    let lines: Vec<String> = (0..rows).map(|row| format!("{row}\trow {row}")).collect();
    let sql = format!(
        "CREATE TABLE copy_:c (id int PRIMARY KEY, t text);\nCOPY copy_:c FROM STDIN;\n{}\n\\.\n",
        lines.join("\n")
    );
    play(server, &sql, rows, chapter)
}

/// Page images by every method of compression that the server was built with.
fn compressed_images(server: &PgCluster, _: &mut Random, rows: u64, chapter: u64) -> Result<()> {
    let methods = "SELECT unnest(enumvals) FROM pg_settings WHERE name = 'wal_compression'";
    play(server, "CREATE TABLE images_:c AS SELECT 0 AS x, md5('a') AS t;", rows, chapter)?;
    for method in server.psql(methods)?.lines() {
        server.set("wal_compression", method)?;
        server.reload()?;
        let sql = "
CHECKPOINT;
INSERT INTO images_:c SELECT i, repeat(md5(i::text), 5) FROM generate_series(1, 200) i;
CHECKPOINT;
UPDATE images_:c SET x = x + 1 WHERE x % 10 = 0;
";
        play(server, sql, rows, chapter)?;
    }
    server.set("wal_compression", "off")?;
    server.reload()
}

/// Page images that replay compares only, and a time without any.
fn images_to_verify(server: &PgCluster, _: &mut Random, rows: u64, chapter: u64) -> Result<()> {
    server.set("wal_consistency_checking", "all")?;
    server.set("full_page_writes", "off")?;
    server.reload()?;
    let sql = "
CREATE TABLE verify_:c (id int PRIMARY KEY, p point, a int[]);
CREATE INDEX ON verify_:c USING gist (p); CREATE INDEX ON verify_:c USING gin (a);
INSERT INTO verify_:c SELECT i, point(i, i), ARRAY[i] FROM generate_series(1, 200) i;
DELETE FROM verify_:c WHERE id > 20;
CHECKPOINT;
UPDATE verify_:c SET id = -id;
";
    play(server, sql, rows, chapter)?;
    server.set("full_page_writes", "on")?;
    server.set("wal_consistency_checking", "")?;
    server.reload()?;
    play(server, "CHECKPOINT", rows, chapter)
}

//! Every kind of index: built, filled, emptied, vacuumed and filled again.
//!
//! In the SQL `:c` is the chapter's number and `:n` the number of rows.

/// Splits, duplicates, pages deleted and reused, dead entries removed on insertion.
pub const BTREE: &str = "
CREATE TABLE bt_:c (id int, k int, f text) WITH (autovacuum_enabled = off);
CREATE INDEX bt_id_:c ON bt_:c (id);
CREATE INDEX bt_k_:c ON bt_:c (k);
CREATE INDEX bt_f_:c ON bt_:c (f) WITH (deduplicate_items = off);
INSERT INTO bt_:c SELECT (i * 7919) % :n, i % 50, md5(i::text) FROM generate_series(1, :n) i;
INSERT INTO bt_:c SELECT 5, 7, 'same' FROM generate_series(1, 500);
CREATE INDEX bt_built_:c ON bt_:c (f, id);
DELETE FROM bt_:c WHERE id BETWEEN :n / 10 AND :n - :n / 10;
VACUUM bt_:c;
VACUUM bt_:c;
INSERT INTO bt_:c SELECT i, i % 50, md5((i + 1)::text) FROM generate_series(1, :n) i;
UPDATE bt_:c SET k = k + 1 WHERE id < 500;
UPDATE bt_:c SET k = k + 1 WHERE id < 500;
SET enable_seqscan = off; SET enable_bitmapscan = off;
SELECT count(*) FROM (SELECT k FROM bt_:c WHERE k = 7) AS s;
INSERT INTO bt_:c SELECT 1, 7, 'x' FROM generate_series(1, 1000);
DROP INDEX bt_k_:c;
";

/// Buckets that split and overflow, pages squeezed out.
pub const HASH: &str = "
CREATE TABLE hash_:c (id int, v int) WITH (autovacuum_enabled = off);
CREATE INDEX hash_v_:c ON hash_:c USING hash (v);
INSERT INTO hash_:c SELECT i, i FROM generate_series(1, :n) i;
INSERT INTO hash_:c SELECT i, 42 FROM generate_series(1, 3000) i;
DELETE FROM hash_:c WHERE id % 5 <> 0;
VACUUM hash_:c;
INSERT INTO hash_:c SELECT i, i FROM generate_series(1, :n / 2) i;
DELETE FROM hash_:c WHERE v = 42;
SET enable_seqscan = off; SET enable_bitmapscan = off;
SELECT count(*) FROM hash_:c WHERE v = 42;
INSERT INTO hash_:c SELECT i, 42 FROM generate_series(1, 2000) i;
VACUUM hash_:c;
";

/// Pending lists, posting lists that become trees, trees that lose pages.
pub const GIN: &str = "
CREATE TABLE gin_:c (id int, a int[], j jsonb) WITH (autovacuum_enabled = off);
CREATE INDEX gin_a_:c ON gin_:c USING gin (a) WITH (fastupdate = on);
CREATE INDEX gin_j_:c ON gin_:c USING gin (j) WITH (fastupdate = off);
INSERT INTO gin_:c SELECT i, ARRAY[i % 5, i, i / 10], jsonb_build_object('k', i % 3, 'v', i)
    FROM generate_series(1, :n) i;
SELECT gin_clean_pending_list('gin_a_:c');
DELETE FROM gin_:c WHERE id < :n - :n / 10;
VACUUM gin_:c;
INSERT INTO gin_:c SELECT i, ARRAY[1, i], '{\"k\": 1}' FROM generate_series(1, :n / 4) i;
CREATE INDEX gin_built_:c ON gin_:c USING gin (a);
VACUUM gin_:c;
";

/// Splits, emptied pages, an exclusion constraint.
pub const GIST: &str = "
CREATE TABLE gist_:c (id int, p point, r int4range) WITH (autovacuum_enabled = off);
CREATE INDEX gist_p_:c ON gist_:c USING gist (p);
ALTER TABLE gist_:c ADD EXCLUDE USING gist (r WITH &&);
INSERT INTO gist_:c SELECT i, point(i % 100, i / 100), int4range(i * 10, i * 10 + 5)
    FROM generate_series(1, :n) i;
DELETE FROM gist_:c WHERE id > :n / 5;
VACUUM gist_:c;
VACUUM gist_:c;
INSERT INTO gist_:c SELECT i, point(i % 7, i), int4range(i * 10, i * 10 + 5)
    FROM generate_series(:n, :n + :n / 4) i;
DELETE FROM gist_:c WHERE p <@ box(point(0, 0), point(6, 1000000));
SET enable_seqscan = off; SET enable_bitmapscan = off;
SELECT count(*) FROM gist_:c WHERE p <@ box(point(0, 0), point(6, 1000000));
INSERT INTO gist_:c SELECT i, point(i % 7, i) FROM generate_series(:n, :n + :n / 4) i;
CREATE INDEX gist_built_:c ON gist_:c USING gist (r);
CREATE UNLOGGED TABLE gist_unlogged_:c (p point);
CREATE INDEX ON gist_unlogged_:c USING gist (p);
";

/// Tries over texts with common prefixes, quad trees over points.
pub const SPGIST: &str = "
CREATE TABLE sp_:c (id int, t text, p point) WITH (autovacuum_enabled = off);
CREATE INDEX sp_t_:c ON sp_:c USING spgist (t);
CREATE INDEX sp_p_:c ON sp_:c USING spgist (p);
INSERT INTO sp_:c SELECT i, repeat('common/', i % 4) || md5((i % 500)::text) || i,
    point(i % 100, i / 100) FROM generate_series(1, :n) i;
INSERT INTO sp_:c SELECT i, chr(200 + i % 200) || 'x', point(0, 0) FROM generate_series(1, 500) i;
DELETE FROM sp_:c WHERE id % 3 <> 0;
VACUUM sp_:c;
INSERT INTO sp_:c SELECT i, 'com' || i, point(i, i) FROM generate_series(1, :n / 4) i;
DELETE FROM sp_:c;
VACUUM sp_:c;
CREATE TABLE sp_small_:c (t text) WITH (autovacuum_enabled = off);
CREATE INDEX sp_small_t_:c ON sp_small_:c USING spgist (t);
INSERT INTO sp_small_:c SELECT i::text FROM generate_series(1, 20) i;
DELETE FROM sp_small_:c WHERE t > '15';
VACUUM sp_small_:c;
";

/// Ranges summarised and not, and more of them than one page of the map holds.
pub const BRIN: &str = "
CREATE TABLE brin_:c (id int, s text, t text) WITH (autovacuum_enabled = off);
ALTER TABLE brin_:c ALTER COLUMN t SET STORAGE PLAIN;
CREATE INDEX brin_i_:c ON brin_:c USING brin (id, s) WITH (pages_per_range = 1);
INSERT INTO brin_:c SELECT i, 's', repeat('b', 6000) FROM generate_series(1, 1500) i;
SELECT brin_summarize_new_values('brin_i_:c');
UPDATE brin_:c SET id = -id WHERE id % 7 = 0;
UPDATE brin_:c SET s = repeat(md5(id::text), 20) WHERE id < 0;
SELECT brin_desummarize_range('brin_i_:c', 3);
SELECT brin_summarize_range('brin_i_:c', 3);
TRUNCATE brin_:c;
";

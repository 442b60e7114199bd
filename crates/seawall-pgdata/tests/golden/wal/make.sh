#!/bin/bash
# Makes the golden WAL of one PostgreSQL major. Run as an ordinary user:
#
#   make.sh <directory of postgres, initdb, pg_ctl> <psql> <output directory> [pg_waldump]
#
# The output is a few segments of 1 MiB that hold a small, varied workload and a promotion; what
# the server itself says about the transactions in them (`commits.txt`: xid and commit time in
# microseconds since 2000; `restore_points.txt`: name and the LSN the server returned); and, where
# pg_waldump of the same major is given, its view of every record (`waldump.txt`).
set -euo pipefail
bin=$1 psql=$2 out=$3 waldump=${4:-}
work=$(mktemp -d)
trap '"$bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
mkdir -p "$out" "$work/ts" "$work/wal"
export PGHOST=$work PGPORT=55999 PGUSER=postgres PGDATABASE=postgres
sql() { "$psql" -XAtq -F ' ' -v ON_ERROR_STOP=1 "$@"; }

"$bin/initdb" -D "$work/data" --wal-segsize=1 -U postgres -A trust --no-sync >/dev/null
cat >>"$work/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$work'
port = $PGPORT
fsync = off
autovacuum = off
wal_level = logical
max_prepared_transactions = 5
track_commit_timestamp = on
archive_mode = on
archive_command = 'cp %p $work/wal/%f'
checkpoint_timeout = 1d
CONF
"$bin/pg_ctl" -D "$work/data" -w -l "$work/log" start >/dev/null
version=$(sql -c "select current_setting('server_version_num')::int / 10000")
sql -c "checkpoint" -c "select pg_switch_wal()" >/dev/null
first=$(sql -c "select pg_walfile_name(pg_current_wal_insert_lsn())")

sql >/dev/null <<'SQL'
create table t (id int primary key, v text, p point, a int[], r int4range);
create index t_hash on t using hash (v);
create index t_gin on t using gin (a);
create index t_gist on t using gist (p);
create index t_spgist on t using spgist (p);
create index t_brin on t using brin (id) with (pages_per_range = 1);
insert into t select i, md5(i::text), point(i % 10, i / 10), array[i % 5, i], int4range(i, i + 5)
    from generate_series(1, 400) i;
update t set v = v || 'x' where id % 5 = 0;
delete from t where id > 300;
vacuum t;
begin; savepoint a; insert into t (id) values (1001); savepoint b; insert into t (id) values (1002);
rollback to b; savepoint c; insert into t (id) values (1003); commit;
begin; create table never (x int); insert into t (id) values (1010); rollback;
begin; insert into t (id) values (1011); prepare transaction 'kept'; commit prepared 'kept';
begin; savepoint s; create table gone (x int); prepare transaction 'dropped';
rollback prepared 'dropped';
create table cut (x int); insert into cut select generate_series(1, 100); truncate cut;
drop table cut;
create unlogged table unlogged (x int primary key);
create sequence s; select nextval('s');
begin; select * from t where id = 1001 for key share; savepoint x;
update t set v = 'multixact' where id = 1001; commit;
select pg_replication_origin_create('elsewhere');
select pg_replication_origin_session_setup('elsewhere');
begin; insert into t (id) values (1020);
select pg_replication_origin_xact_setup('0/1234', '2020-01-01 00:00:00+00'); commit;
select pg_replication_origin_session_reset();
set wal_compression = on; checkpoint; update t set v = v || 'y' where id < 200;
SQL
sql -c "create tablespace ts location '$work/ts'"
if [ "$version" -ge 17 ]; then sql -c "vacuum (freeze) t"; fi
sql -c "select 'before the message', pg_create_restore_point('before the message')" \
    >"$out/restore_points.txt"
# Longer than what is left of the segment: the record crosses into the next one.
sql -c "select pg_logical_emit_message(false, 'golden', repeat(md5('a'), 20000))" >/dev/null
sql -c "select 'after the message', pg_create_restore_point('after the message')" \
    >>"$out/restore_points.txt"
sql -c "delete from t where id > 100" -c "vacuum t" -c "drop index t_gin"
sql -c "select xid, (extract(epoch from pg_xact_commit_timestamp(xid::text::xid) -
        '2000-01-01 00:00:00+00'::timestamptz) * 1000000)::numeric(30,0)
    from generate_series((select min(xmin::text::bigint) from pg_class where relname = 't'),
        txid_snapshot_xmax(txid_current_snapshot()) - 1) as xid
    where pg_xact_commit_timestamp(xid::text::xid) is not null order by xid" >"$out/commits.txt"

last=$(sql -c "select pg_walfile_name(pg_current_wal_insert_lsn())")

# Promote: the next timeline begins with a copy of this one's last segment.
"$bin/pg_ctl" -D "$work/data" -m fast -w stop >/dev/null
cp -n "$work/data/pg_wal/$last" "$work/wal/"
touch "$work/data/standby.signal"
sed -i 's/^max_prepared_transactions.*/max_prepared_transactions = 6/' "$work/data/postgresql.conf"
"$bin/pg_ctl" -D "$work/data" -w -l "$work/log" start >/dev/null
"$bin/pg_ctl" -D "$work/data" -w promote >/dev/null
sql -c "drop table t"
promoted=$(sql -c "select pg_walfile_name(pg_current_wal_insert_lsn())")
"$bin/pg_ctl" -D "$work/data" -m immediate -w stop >/dev/null

cp "$work/data/pg_wal/$promoted" "$work/wal/"
cd "$work/wal"
for name in 0*; do
    if [[ ${#name} = 24 && ! $name < $first ]]; then zstd -q -f -19 "$name" -o "$out/$name.zst"; fi
done
if [ -n "$waldump" ]; then
    "$waldump" -p . "$first" "$last" | zstd -q -f -19 -o "$out/waldump.txt.zst" || true
fi

-- What the benchmark's cluster holds beside pgbench's tables. Everything follows from row numbers:
-- built again, it has the same rows.

-- Documents of about 10 kB: PostgreSQL compresses them and puts them into a TOAST table.
CREATE TABLE documents (id bigint PRIMARY KEY, document jsonb NOT NULL);
INSERT INTO documents
SELECT id, jsonb_build_object(
    'id', id,
    'customer', 'customer-' || (id * 7919) % 50000,
    'placed', '2025-01-01'::timestamp + id * interval '37 seconds',
    'items', (SELECT jsonb_agg(jsonb_build_object(
            'sku', 'A-' || (id * 31 + item * 17) % 9973,
            'title', (ARRAY['anchor', 'ballast', 'capstan', 'davit', 'ensign', 'fender', 'gaff'])
                [1 + (id + item * 3) % 7] || ' ' || (id * item) % 1009,
            'quantity', (id * item) % 13,
            'price', ((id * 131 + item * 7) % 100000) / 100.0))
        FROM generate_series(1, 110) AS item))
FROM generate_series(1::bigint, :documents) AS id;

-- Nothing to compress: digests, kept as they are.
CREATE TABLE digests (id bigint PRIMARY KEY, digest bytea NOT NULL);
ALTER TABLE digests ALTER COLUMN digest SET STORAGE EXTERNAL;
INSERT INTO digests
SELECT id, (SELECT string_agg(sha512((id || '/' || part)::bytea), NULL) FROM generate_series(1, 15) AS part)
FROM generate_series(1::bigint, :digests) AS id;

-- Many small files.
SELECT format('CREATE TABLE small_%s (id int PRIMARY KEY, name text NOT NULL, at timestamp)', n),
    format('INSERT INTO small_%s SELECT i, md5((%s * i)::text), ''2025-01-01''::timestamp + i * interval ''1 hour'' '
        'FROM generate_series(1, 1 + %s %% 120) AS i', n, n, n)
FROM generate_series(1, 2000) AS n \gexec

VACUUM (FREEZE, ANALYZE);

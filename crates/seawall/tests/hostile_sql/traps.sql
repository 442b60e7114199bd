-- Traps: whatever in SQL is found by its name alone leads here first. Each notes that it was sprung
-- in the server's log, and fails.
SET search_path = pg_catalog;
CREATE SCHEMA traps;
CREATE FUNCTION traps.spring(what text) RETURNS bool LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE LOG 'a trap was sprung: %', what;
    RAISE EXCEPTION 'a trap was sprung: %', what;
END $$;

-- Functions: those of PostgreSQL with their own arguments, and again with text for all of them,
-- which is what a literal without a type prefers.
DO $do$
DECLARE
    f record;
    arguments text;
BEGIN
    FOR f IN
        SELECT proname, proretset, format_type(prorettype, NULL) AS returns,
               array_to_string(ARRAY(SELECT format_type(t, NULL) FROM unnest(proargtypes) t), ',') AS own,
               array_to_string(array_fill('text'::text, ARRAY[pronargs::int]), ',') AS texts
        FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f'
    LOOP
        FOREACH arguments IN ARRAY ARRAY[f.own, f.texts] LOOP
            BEGIN
                EXECUTE format(
                    'CREATE FUNCTION traps.%I(%s) RETURNS %s %s LANGUAGE plpgsql AS %L',
                    f.proname, arguments, CASE WHEN f.proretset THEN 'SETOF' END, f.returns,
                    format('BEGIN PERFORM traps.spring(%L); RETURN NULL; END', f.proname));
            EXCEPTION WHEN duplicate_function OR invalid_function_definition
                OR feature_not_supported OR datatype_mismatch THEN NULL;
            END;
        END LOOP;
    END LOOP;
END $do$;

-- Operators with two operands.
DO $do$
DECLARE
    o record;
BEGIN
    FOR o IN
        SELECT oid, oprname, format_type(oprleft, NULL) AS l, format_type(oprright, NULL) AS r,
               format_type(oprresult, NULL) AS returns
        FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprkind = 'b'
    LOOP
        BEGIN
            EXECUTE format(
                'CREATE FUNCTION traps.operator_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L',
                o.oid, o.l, o.r, o.returns,
                format('BEGIN PERFORM traps.spring(%L); RETURN NULL; END', o.oprname));
            EXECUTE format(
                'CREATE OPERATOR traps.%s (LEFTARG = %s, RIGHTARG = %s, %s = traps.operator_%s)',
                o.oprname, o.l, o.r, 'PROCEDURE', o.oid);
        EXCEPTION WHEN invalid_function_definition OR feature_not_supported
            OR datatype_mismatch THEN NULL;
        END;
    END LOOP;
END $do$;

-- Relations.
DO $do$
DECLARE
    r record;
BEGIN
    FOR r IN
        SELECT relname FROM pg_class
        WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v')
    LOOP
        BEGIN
            EXECUTE format(
                'CREATE VIEW traps.%I AS SELECT * FROM pg_catalog.%1$I WHERE traps.spring(%L)',
                r.relname, r.relname);
        EXCEPTION WHEN duplicate_table OR invalid_table_definition THEN NULL;
        END;
    END LOOP;
END $do$;

-- Types.
DO $do$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT typname FROM pg_type
        WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b' AND typname !~ '^_'
    LOOP
        BEGIN
            EXECUTE format(
                'CREATE DOMAIN traps.%I AS pg_catalog.%1$I CHECK (traps.spring(%L))',
                t.typname, t.typname);
        EXCEPTION WHEN duplicate_object THEN NULL;
        END;
    END LOOP;
END $do$;

GRANT USAGE ON SCHEMA traps TO PUBLIC;
-- What an owner of a database may do to everybody who connects to it.
DO $do$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = traps, "$user", public, pg_catalog', current_database());
END $do$;
SELECT 'traps: ' || (SELECT count(*) FROM pg_proc WHERE pronamespace = 'traps'::regnamespace)
    || ' ' || (SELECT count(*) FROM pg_operator WHERE oprnamespace = 'traps'::regnamespace)
    || ' ' || (SELECT count(*) FROM pg_class WHERE relnamespace = 'traps'::regnamespace)
    || ' ' || (SELECT count(*) FROM pg_type WHERE typnamespace = 'traps'::regnamespace AND typtype = 'd');

//! Sessions with a real server: logins, queries, errors, and the ends of sessions.

use std::time::{Duration, Instant};

use crate::server::{Server, config, connect};
use nix::sys::signal::Signal;
use seawall_core::{Code, Error, Lsn};
use seawall_pgwire::{Connection, Limits, PgError, TransactionStatus, quote_ident, quote_literal};

const HBA: &str = "local all,replication postgres trust\nlocal all peered peer\nhost all peered all trust\n\
    host all scrammed,thorough all scram-sha-256\nhost all hashed all md5\nhost all plain all password\n\
    local all all trust\n";

const USERS: &str = "SET password_encryption = 'scram-sha-256';
    CREATE ROLE scrammed LOGIN PASSWORD 'se''cr\u{e9}t';
    CREATE ROLE plain LOGIN PASSWORD 'plain text';
    CREATE ROLE thorough LOGIN PASSWORD
        'SCRAM-SHA-256$300000:MDEyMzQ1Njc4OWFiY2RlZg==$cQt8fFj3h1L93IM/YLRqRjR8JLSxIfEs+Nc6v0mIjVs=:oMMt3K+QqQEI0/7RS4k3ZmUnDxsYXslpukPe67xrmAU=';
    SET password_encryption = 'md5';
    CREATE ROLE hashed LOGIN PASSWORD 'hash';
    CREATE ROLE peered LOGIN";

async fn whoami(connection: &mut Connection) -> String {
    connection.query_value("SELECT current_user").await.unwrap()
}

fn code_and_hint(error: PgError) -> (Code, String) {
    let error = Error::from(error);
    (error.code(), error.hint().map(|hint| format!("{hint:?}")).unwrap_or_default())
}

#[tokio::test]
async fn every_login_works_and_every_refusal_says_why() {
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    let server = Server::start("", &format!("local all \"{me}\" peer\n{HBA}"));
    let mut admin = server.admin().await;
    admin.simple_query(USERS).await.unwrap();

    for login in [
        r"user=scrammed password='se\'crét'",
        r"user=scrammed password='se\'crét' require_auth=scram-sha-256",
        // Of 300 000 iterations, as scram_iterations makes them since PostgreSQL 16.
        "user=thorough password=secret",
        "user=hashed password=hash",
        "user=plain password='plain text'",
    ] {
        let mut session = connect(&server.tcp(login)).await.unwrap();
        assert!(login.contains(&whoami(&mut session).await), "{login}");
        session.close().await;
    }

    // Over a Unix socket the operating system says who is there, to both sides.
    if me != "postgres" {
        admin.simple_query(&format!("CREATE ROLE {} LOGIN", quote_ident(&me))).await.unwrap();
    }
    let mut session = connect(&server.socket(&format!("user={me}"))).await.unwrap();
    assert_eq!(whoami(&mut session).await, me);
    let runs_as = if me == "root" { "postgres" } else { &me };
    connect(&server.socket(&format!("requirepeer={runs_as}"))).await.unwrap();
    let error = connect(&server.socket("requirepeer=nobody-at-all")).await.unwrap_err();
    assert!(error.to_string().contains("runs as"), "{error}");

    let refused: &[(&str, &str, &str)] = &[
        ("user=scrammed password=wrong", "28P01", "Check the password"),
        ("user=thorough password=wrong", "28P01", "Check the password"),
        ("user=hashed password=wrong", "28P01", "Check the password"),
        ("user=scrammed", "", ".pgpass"),
        ("user=plain password='plain text' require_auth=scram-sha-256", "", ""),
        ("user=peered require_auth=!none", "", ""),
        ("user=nobody", "28000", "hba_file"),
    ];
    for (login, sqlstate, hint) in refused {
        let error = connect(&server.tcp(login)).await.unwrap_err();
        assert_eq!(error.sqlstate().unwrap_or_default(), *sqlstate, "{login}: {error}");
        assert!(error.to_string().contains(&format!("port {}", server.port)), "{error}");
        let (code, shown) = code_and_hint(error);
        assert_eq!(code, Code::AuthenticationFailed, "{login}");
        assert!(shown.contains(hint), "{login}: {shown}");
    }
    let error = connect(&server.socket("user=missing")).await.unwrap_err();
    assert!(code_and_hint(error).1.contains("existing role"));
    let error = connect(&server.socket("user=peered")).await.unwrap_err();
    assert!(code_and_hint(error).1.contains("pg_ident.conf"));
    let error = connect(&server.socket("user=postgres dbname=missing")).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("3D000"));
    let (code, hint) = code_and_hint(error);
    assert!(code == Code::ConnectFailed && hint.contains("dbname="), "{hint}");

    // A refused login is not tried elsewhere; a host that is not there is passed over.
    let dir = server.socket_directory().display();
    let both =
        format!("host=/nowhere,127.0.0.1,{dir} port={} user=scrammed password=x", server.port);
    let Err(PgError::Connect { attempts }) = connect(&config(&both)).await else { panic!() };
    let targets: Vec<&str> = attempts.iter().map(|attempt| attempt.target.as_str()).collect();
    let tcp = format!("host \"127.0.0.1\", port {}", server.port);
    assert_eq!(targets, [&format!("socket \"/nowhere/.s.PGSQL.{}\"", server.port), &tcp]);

    let (code, hint) = code_and_hint(connect(&config("host=/nowhere")).await.unwrap_err());
    assert!(code == Code::ConnectFailed && hint.contains("unix_socket_directories"), "{hint}");
}

#[tokio::test]
async fn a_session_answers_fails_goes_on_and_ends() {
    let server = Server::start("", HBA);
    let mut session = server.admin().await;
    values_and_shapes(&mut session).await;
    errors_leave_the_session_usable(&mut session).await;
    copying_is_refused(&mut session).await;
    big_results(&server, &mut session).await;
    time_limits_and_cancelling(&mut session).await;
    replication_sessions(&server).await;
    nobody_else_s_settings_count(&server, &mut session).await;
    sessions_end(&server, session).await;
}

async fn values_and_shapes(session: &mut Connection) {
    assert!(session.server_version_num() >= 120_000);
    let reported: u32 = session.query_value("SHOW server_version_num").await.unwrap();
    assert_eq!(session.server_version_num(), reported);
    let pid: i32 = session.query_value("SELECT pg_backend_pid()").await.unwrap();
    assert_eq!(session.backend_pid(), pid);
    assert_eq!(session.parameter("application_name"), Some("seawall"));

    let sets = session
        .simple_query(
            "SELECT 1 AS a, NULL AS b; ; CREATE TEMP TABLE t (i int); INSERT INTO t SELECT 7",
        )
        .await
        .unwrap();
    let tags: Vec<&str> = sets.iter().map(seawall_pgwire::ResultSet::command_tag).collect();
    assert_eq!(tags, ["SELECT 1", "CREATE TABLE", "INSERT 0 1"]);
    assert_eq!(sets[0].columns(), ["a", "b"]);
    let row = &sets[0].rows()[0];
    assert_eq!((row.text("a").unwrap(), row.text("b").unwrap()), (Some("1"), None));
    assert_eq!(row.get::<Option<i32>>("b").unwrap(), None);
    let message = row.get::<i32>("b").unwrap_err().to_string();
    assert!(message.contains("NULL, expected a 32-bit integer"), "{message}");
    assert!(row.text("c").unwrap_err().to_string().contains("no column \"c\""));

    let row = session
        .query_one("SELECT true AS yes, '1A/2B'::pg_lsn AS lsn, '\\xc0ff'::bytea AS raw, 1.5 AS n")
        .await
        .unwrap();
    assert!(row.get::<bool>("yes").unwrap());
    assert_eq!(row.get::<Lsn>("lsn").unwrap(), "1A/2B".parse().unwrap());
    assert_eq!(row.get::<Vec<u8>>("raw").unwrap(), [0xc0, 0xff]);
    assert!((row.get::<f64>("n").unwrap() - 1.5).abs() < f64::EPSILON);

    for text in ["it's", r"back\slash'", "", "ünï \"x\""] {
        let sql = format!("SELECT {} AS {}", quote_literal(text), quote_ident("a \"b\""));
        let row = session.query_one(&sql).await.unwrap();
        assert_eq!(row.text("a \"b\"").unwrap(), Some(text));
    }
    for wrong in ["SELECT 1 WHERE false", "SELECT 1, 2", "SELECT 1; SELECT 2", "SELECT 'x'", ""] {
        let error = session.query_value::<i32>(wrong).await.unwrap_err();
        assert!(matches!(error, PgError::Value(_)), "{wrong}: {error}");
    }
}

async fn errors_leave_the_session_usable(session: &mut Connection) {
    let error = session.simple_query("SELECT 1; SELECT 1/0; SELECT 2").await.unwrap_err();
    let PgError::Server(server_error) = &error else { panic!("{error}") };
    assert_eq!((server_error.severity.as_str(), error.sqlstate()), ("ERROR", Some("22012")));
    assert_eq!(server_error.message, "division by zero");

    session.simple_query("BEGIN").await.unwrap();
    assert_eq!(session.transaction_status(), TransactionStatus::InTransaction);
    session.simple_query("nonsense").await.unwrap_err();
    assert_eq!(session.transaction_status(), TransactionStatus::Failed);
    session.simple_query("ROLLBACK").await.unwrap();
    assert_eq!(session.transaction_status(), TransactionStatus::Idle);

    let notice = "DO $$ BEGIN RAISE NOTICE 'psst'; RAISE WARNING 'hey'; END $$";
    assert_eq!(session.simple_query(notice).await.unwrap()[0].command_tag(), "DO");
    let denied = "SET ROLE peered; SELECT pg_read_binary_file('/etc/passwd')";
    session.simple_query("CREATE ROLE peered LOGIN").await.unwrap();
    let error = session.simple_query(denied).await.unwrap_err();
    assert_eq!(Error::from(error).code(), Code::PrivilegeMissing);
    session.simple_query("RESET ROLE").await.unwrap();
    assert!(matches!(session.simple_query("SELECT '\0'").await, Err(PgError::Value(_))));
    session.simple_query("SET application_name = 'other'").await.unwrap();
    assert_eq!(session.parameter("application_name"), Some("other"));
    assert_eq!(session.query_value::<i32>("SELECT 42").await.unwrap(), 42);
}

async fn copying_is_refused(session: &mut Connection) {
    let error = session.simple_query("COPY t FROM STDIN").await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("57014"));
    let error = session.simple_query("COPY t TO STDOUT").await.unwrap_err();
    assert!(matches!(error, PgError::Value(_)), "{error}");
    assert_eq!(session.query_value::<i32>("SELECT i FROM t").await.unwrap(), 7);
}

async fn big_results(server: &Server, session: &mut Connection) {
    const ROWS: usize = 1280;
    let rows = session.query_rows(
        "SELECT n, repeat(chr(65 + n % 26), 8192) AS x FROM generate_series(1, 1280) n",
    );
    let rows = rows.await.unwrap();
    assert_eq!(rows.len(), ROWS);
    for (index, row) in rows.iter().enumerate() {
        let letter = char::from(65 + u8::try_from((index + 1) % 26).unwrap());
        let text = row.text("x").unwrap().unwrap();
        assert!(text.len() == 8192 && text.chars().all(|found| found == letter));
    }
    let whole: String = session.query_value("SELECT repeat('x', 10485760)").await.unwrap();
    assert_eq!(whole.len(), 10 << 20);

    let limits = Limits { message_bytes: 1 << 20, result_bytes: 2 << 20, ..Limits::default() };
    for too_much in
        ["SELECT repeat('x', 1048577)", "SELECT repeat('x', 1000) FROM generate_series(1, 3000)"]
    {
        let config = server.socket("user=postgres").with_limits(limits);
        let mut limited = connect(&config).await.unwrap();
        let error = limited.simple_query(too_much).await.unwrap_err();
        assert!(matches!(error, PgError::TooLarge(_)), "{error}");
        assert!(limited.is_over());
    }
}

async fn time_limits_and_cancelling(session: &mut Connection) {
    let limit = Duration::from_millis(100);
    let begun = Instant::now();
    let error = session.within(limit).simple_query("SELECT pg_sleep(30)").await.unwrap_err();
    assert!(matches!(error, PgError::Timeout(found) if found == limit), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(session.query_value::<i32>("SELECT 1").await.unwrap(), 1);

    let token = session.cancel_token();
    let cancel = async {
        tokio::time::sleep(limit).await;
        token.cancel().await
    };
    let (answer, cancelled) = tokio::join!(session.simple_query("SELECT pg_sleep(30)"), cancel);
    cancelled.unwrap();
    assert_eq!(answer.unwrap_err().sqlstate(), Some("57014"));
}

async fn replication_sessions(server: &Server) {
    let config = server.socket("user=postgres replication=true");
    let mut walsender = connect(&config).await.unwrap();
    let row = walsender.query_one("IDENTIFY_SYSTEM").await.unwrap();
    assert_eq!(row.get::<u32>("timeline").unwrap(), 1);
    assert!(row.get::<Lsn>("xlogpos").unwrap().is_valid());
    let error = walsender.simple_query("START_REPLICATION 0/0 TIMELINE 9").await.unwrap_err();
    assert!(matches!(error, PgError::Server(_)), "{error}");
    // A stream is not the answer to a simple query.
    let error = walsender.simple_query("START_REPLICATION 0/1000000").await.unwrap_err();
    assert!(matches!(error, PgError::Protocol(_)) && walsender.is_over(), "{error}");
    let config = server.socket("user=postgres").with_startup_parameter("work_mem", "5MB");
    let mut tuned = connect(&config).await.unwrap();
    assert_eq!(tuned.query_value::<String>("SHOW work_mem").await.unwrap(), "5MB");
}

/// Neither the role's settings nor those of the connection string come before the session's own.
async fn nobody_else_s_settings_count(server: &Server, admin: &mut Connection) {
    let sql = "CREATE ROLE led LOGIN; ALTER ROLE led SET search_path = evil, pg_catalog; \
               ALTER DATABASE postgres SET search_path = evil; \
               ALTER ROLE led SET bytea_output = escape; ALTER ROLE led SET lock_timeout = 1; \
               ALTER ROLE led SET default_transaction_isolation = serializable";
    admin.simple_query(sql).await.unwrap();
    for options in ["", "options='-c search_path=evil -c statement_timeout=1'"] {
        let mut session = connect(&server.socket(&format!("user=led {options}"))).await.unwrap();
        for (setting, value) in [
            ("search_path", ""),
            ("bytea_output", "hex"),
            ("lock_timeout", "0"),
            ("statement_timeout", "0"),
            ("default_transaction_isolation", "read committed"),
        ] {
            let found: String = session.query_value(&format!("SHOW {setting}")).await.unwrap();
            assert_eq!(found, value, "{setting}");
        }
    }
}

async fn sessions_end(server: &Server, mut admin: Connection) {
    // A query that is abandoned takes the session with it.
    let mut abandoned = server.admin().await;
    let sleep = abandoned.simple_query("SELECT pg_sleep(0.2)");
    tokio::time::timeout(Duration::from_millis(50), sleep).await.unwrap_err();
    let error = abandoned.simple_query("SELECT 1").await.unwrap_err();
    assert!(matches!(error, PgError::Lost { .. }), "{error}");

    // An idle session that was terminated says why when it is used again.
    let mut idle = server.admin().await;
    let terminate = format!("SELECT pg_terminate_backend({})", idle.backend_pid());
    assert!(admin.query_value::<bool>(&terminate).await.unwrap());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let error = idle.simple_query("SELECT 1").await.unwrap_err();
    assert!(matches!(error, PgError::Lost { .. }), "{error}");
    assert_eq!(error.sqlstate(), Some("57P01"));
    assert!(idle.is_over());

    // The server goes down in the middle of a query.
    let kill = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.signal(Signal::SIGQUIT);
    };
    let (answer, ()) = tokio::join!(admin.simple_query("SELECT pg_sleep(30)"), kill);
    let error = answer.unwrap_err();
    assert!(matches!(error, PgError::Lost { .. }), "{error}");
    assert_eq!(Error::from(error).code(), Code::ConnectionLost);
    let error = admin.simple_query("SELECT 1").await.unwrap_err();
    assert!(matches!(error, PgError::Lost { .. }), "{error}");
    admin.close().await;
}

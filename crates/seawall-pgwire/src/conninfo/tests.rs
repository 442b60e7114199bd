//! What libpq 17 and 18 make of connection strings, and that Seawall makes the same of them.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::config::{
    AllowedAuth, Config, HostPlace, Replication, RootCertificates, SslMode, TargetSessionAttrs,
};
use crate::vet::SESSION_SETTINGS;

fn environment(variables: &[(&str, &str)]) -> Environment {
    let variables: HashMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Environment::new(move |name| variables.get(name).cloned()).with_os_user("osuser")
}

fn resolve(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConninfoError> {
    Config::parse(text, &environment(variables))
}

fn config(text: &str) -> Config {
    resolve(text, &[]).unwrap()
}

/// The options of a string as `keyword=value` lines in alphabetical order.
fn options(text: &str) -> Result<Vec<String>, ConninfoError> {
    let conninfo: Conninfo = text.parse()?;
    Ok(conninfo.values.iter().map(|(k, v)| format!("{k}={}", v.as_str())).collect())
}

#[test]
fn keyword_value_strings_are_read_as_libpq_does() {
    let table: &[(&str, &[&str])] = &[
        ("", &[]),
        ("  \t\n ", &[]),
        ("host=db port=5433", &["host=db", "port=5433"]),
        ("host = db\tport\n=\n1", &["host=db", "port=1"]),
        ("dbname='my db' user='o\\'neil'", &["dbname=my db", "user=o'neil"]),
        (r"dbname=my\ db user=a\\b", &["dbname=my db", r"user=a\b"]),
        ("host='a'port='1'", &["host=a", "port=1"]),
        ("dbname='' user=u", &["dbname=", "user=u"]),
        ("host=a host=b", &["host=b"]),
        // Spaces after "=" are skipped even before the next keyword.
        ("host= port=1", &["host=port=1"]),
        ("host=", &["host="]),
        ("host=it's", &["host=it's"]),
        (r"host=a\", &["host=a"]),
        ("dbname=ünï", &["dbname=ünï"]),
    ];
    for (text, expected) in table {
        assert_eq!(options(text).unwrap(), *expected, "{text:?}");
    }
}

#[test]
fn keyword_value_mistakes_are_named() {
    let message = |text: &str| options(text).unwrap_err().to_string();
    assert_eq!(message("mydb"), "missing \"=\" in the connection string");
    assert_eq!(
        message("host=a b"),
        "missing \"=\" after the value of \"host\" in the connection string"
    );
    assert_eq!(message("host='a"), "the quoted value of \"host\" does not end");
    assert_eq!(message(r"host='a\'"), "the quoted value of \"host\" does not end");
    assert_eq!(message("hots=a"), "unknown connection keyword \"hots\" (\"host\"?)");
    assert_eq!(message("=a"), "unknown connection keyword");
    let directory = message("sslcrldir=x");
    assert_eq!(directory, "connection keyword \"sslcrldir\" is supported only as \"\"");
}

#[test]
fn uris_are_read_as_libpq_does() {
    let table: &[(&str, &[&str])] = &[
        ("postgresql://", &[]),
        ("postgres://host", &["host=host"]),
        ("postgresql://host/", &["host=host"]),
        ("postgresql:///db", &["dbname=db"]),
        ("postgresql://host:123/db", &["dbname=db", "host=host", "port=123"]),
        ("postgresql://u:p@host", &["host=host", "password=p", "user=u"]),
        ("postgresql://u@", &["user=u"]),
        ("postgresql://:p@h", &["host=h", "password=p"]),
        (
            "postgresql://u%40x:p%3A%2F@h/d%20b",
            &["dbname=d b", "host=h", "password=p:/", "user=u@x"],
        ),
        ("postgresql://[::1]:5433/db", &["dbname=db", "host=::1", "port=5433"]),
        ("postgresql://[::1]", &["host=::1"]),
        ("postgresql://a:1,b,[::2]:3/d", &["dbname=d", "host=a,b,::2", "port=1,,3"]),
        ("postgresql://%2Frun%2Fpg:5433/d", &["dbname=d", "host=/run/pg", "port=5433"]),
        ("postgresql:///d?host=/run/pg", &["dbname=d", "host=/run/pg"]),
        ("postgresql://h?sslmode=require&user=u&", &["host=h", "sslmode=require", "user=u"]),
        ("postgresql://h/d?ssl=true", &["dbname=d", "host=h", "sslmode=require"]),
        ("postgresql://h?options=-c%20a%3Db", &["host=h", "options=-c a=b"]),
        ("postgresql://u@h/a?dbname=b", &["dbname=b", "host=h", "user=u"]),
    ];
    for (text, expected) in table {
        assert_eq!(options(text).unwrap(), *expected, "{text:?}");
    }
}

#[test]
fn uri_mistakes_are_refused() {
    for text in [
        "postgresql://[::1",
        "postgresql://[]/",
        "postgresql://[::1]x",
        "postgresql://h%2",
        "postgresql://h%zz",
        "postgresql://h/%00",
        "postgresql://h/%ff",
        "postgresql://h/a b",
        "postgresql://h?user",
        "postgresql://h?user=a=b",
        "postgresql://h?&",
        "postgresql://u:p@ss@h/d",
        "postgresql://u:pa/ss@h/d",
    ] {
        assert!(matches!(options(text), Err(ConninfoError::InvalidUri { .. })), "{text:?}");
    }
    let unknown = options("postgresql://h?sslmod=x").unwrap_err().to_string();
    assert_eq!(unknown, "unknown connection keyword \"sslmod\" (\"sslmode\"?)");
}

#[test]
fn hosts_ports_and_addresses_are_paired_by_position() {
    let shown = |text: &str| -> Vec<String> {
        config(text).hosts().iter().map(ToString::to_string).collect()
    };
    assert_eq!(shown("host=a,b port=1,2"), ["host \"a\", port 1", "host \"b\", port 2"]);
    assert_eq!(shown("host=a,/s port=7"), ["host \"a\", port 7", "socket \"/s/.s.PGSQL.7\""]);
    assert_eq!(shown("host=a,b port=,2"), ["host \"a\", port 5432", "host \"b\", port 2"]);
    assert_eq!(shown("host=a hostaddr=::1"), ["host \"a\" (::1), port 5432"]);
    assert_eq!(
        shown("port=6"),
        ["socket \"/run/postgresql/.s.PGSQL.6\"", "socket \"/tmp/.s.PGSQL.6\""]
    );
    assert_eq!(config("host=@abstract").hosts[0].place, HostPlace::Socket("@abstract".into()));
    for text in ["host=a,b port=1,2,3", "host=a,b hostaddr=::1"] {
        let error = resolve(text, &[]).unwrap_err();
        assert!(matches!(error, ConninfoError::CountMismatch { .. }), "{text}");
    }
    for text in ["port=0", "port=65536", "port=x", "port=-1", "hostaddr=db"] {
        let error = resolve(text, &[]).unwrap_err();
        assert!(matches!(error, ConninfoError::InvalidValue { .. }), "{text}");
    }
}

#[test]
fn the_string_comes_before_the_environment_and_that_before_defaults() {
    let variables = [("PGUSER", "envuser"), ("PGHOST", "envhost"), ("PGPORT", "99")];
    let config = resolve("host=h", &variables).unwrap();
    assert_eq!(config.to_string(), "database \"envuser\" as \"envuser\" at host \"h\", port 99");
    let config = resolve("", &[]).unwrap();
    assert_eq!((config.user(), config.dbname()), ("osuser", "osuser"));
    assert_eq!(config.application_name, "seawall");
    // An empty value hides the environment and then stands for the default.
    let config = resolve("host='' dbname=''", &[("PGHOST", "e"), ("PGDATABASE", "e")]).unwrap();
    assert!(config.hosts()[0].socket_directory().is_some());
    assert_eq!(config.dbname(), "osuser");
    let nobody = Environment::new(|_| None);
    assert_eq!(Config::parse("", &nobody).unwrap_err(), ConninfoError::NoUser);
}

#[test]
fn application_names_fall_back() {
    assert_eq!(config("fallback_application_name=f").application_name, "f");
    assert_eq!(config("fallback_application_name=f application_name=a").application_name, "a");
}

#[test]
fn tls_keywords_depend_on_each_other() {
    assert_eq!(config("").tls.mode, SslMode::Prefer);
    assert_eq!(config("sslmode=allow").tls.mode, SslMode::Prefer);
    let system = config("sslrootcert=system").tls;
    assert_eq!((system.mode, system.roots), (SslMode::VerifyFull, RootCertificates::System));
    let file = config("sslrootcert=/r.crt sslmode=verify-ca").tls;
    assert_eq!(file.roots, RootCertificates::File("/r.crt".into()));
    let versions = config("ssl_min_protocol_version=TLSv1.3").tls.versions;
    assert!(versions.tls13 && !versions.tls12);
    for text in [
        "sslmode=require sslrootcert=system",
        "sslnegotiation=direct",
        "ssl_max_protocol_version=TLSv1.1",
    ] {
        let error = resolve(text, &[]).unwrap_err();
        assert!(matches!(error, ConninfoError::Contradiction(_)), "{text}");
    }
    let error = resolve("sslmode=on", &[]).unwrap_err().to_string();
    assert_eq!(
        error,
        "invalid value \"on\" for \"sslmode\": expected one of disable, allow, prefer, require, \
         verify-ca, verify-full"
    );
}

#[test]
fn times_and_sessions_are_typed() {
    use std::time::Duration;
    assert_eq!(config("").connect_timeout, Duration::from_secs(30));
    assert_eq!(config("connect_timeout=0").connect_timeout, Duration::from_secs(3600));
    assert_eq!(config("connect_timeout=-1").connect_timeout, Duration::from_secs(3600));
    assert_eq!(config("connect_timeout=' 5 '").connect_timeout, Duration::from_secs(5));
    assert!(resolve("connect_timeout=5s", &[]).is_err());
    assert_eq!(
        config("tcp_user_timeout=250").keepalive.user_timeout,
        Some(Duration::from_millis(250))
    );
    assert!(!config("keepalives=0").keepalive.enabled);
    let attrs = config("target_session_attrs=prefer-standby").target_session_attrs;
    assert_eq!(attrs, TargetSessionAttrs::PreferStandby);
    assert_eq!(config("replication=true").replication, Replication::Physical);
    assert_eq!(config("replication=database").replication, Replication::Database);
    assert!(resolve("replication=maybe", &[]).is_err());
}

#[test]
fn require_auth_allows_or_forbids() {
    let scram = config("require_auth=scram-sha-256").allowed_auth;
    assert_eq!(scram, AllowedAuth { none: false, password: false, md5: false, scram: true });
    let no_password = config("require_auth=!password,!none").allowed_auth;
    assert_eq!(no_password, AllowedAuth { none: false, password: false, md5: true, scram: true });
    assert!(resolve("require_auth=!password,md5", &[]).is_err());
    assert!(resolve("require_auth=peer", &[]).is_err());
}

#[test]
fn the_startup_packet_holds_what_was_asked_for() {
    let config = config("user=u dbname=d options='-c x=y' replication=database")
        .with_startup_parameter("work_mem", "5MB");
    let first = [
        ("user", "u"),
        ("database", "d"),
        ("replication", "database"),
        ("options", "-c x=y"),
        ("application_name", "seawall"),
        ("client_encoding", "UTF8"),
    ];
    // What every session has comes after what `options` may say of it.
    let expected = [first.as_slice(), &SESSION_SETTINGS, &[("work_mem", "5MB")]].concat();
    assert_eq!(config.startup_packet(), expected);
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn services_fill_in_what_the_string_leaves_open() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("services");
    write(
        &file,
        "# c\n[a]\nhost=ha\n[b]\n  host=hb  \nport=7\n\n[c]\nnonsense\n[d]\nservice=a\n",
        0o644,
    );
    let file = file.to_str().unwrap();
    let variables = [("PGSERVICEFILE", file), ("PGPORT", "9"), ("PGUSER", "e")];
    let config = resolve("service=b user=u", &variables).unwrap();
    assert_eq!(config.to_string(), "database \"u\" as \"u\" at host \"hb\", port 7");
    let config = resolve("", &[("PGSERVICE", "a"), ("PGSERVICEFILE", file)]).unwrap();
    assert_eq!(config.hosts()[0].to_string(), "host \"ha\", port 5432");
    let named = resolve(&format!("service=a servicefile={file}"), &[]).unwrap();
    assert_eq!(named.hosts()[0].to_string(), "host \"ha\", port 5432");
    for (service, line) in [("c", 9), ("d", 11)] {
        let error = resolve(&format!("service={service}"), &variables).unwrap_err();
        let ConninfoError::ServiceFile { line: found, .. } = error else { panic!("{error}") };
        assert_eq!(found, line);
    }
    let error = resolve("service=z", &variables).unwrap_err();
    assert!(matches!(error, ConninfoError::ServiceNotFound { .. }), "{error}");
    let error = resolve("service=z", &[("PGSERVICEFILE", "/nowhere")]).unwrap_err();
    assert!(matches!(error, ConninfoError::Unreadable { .. }), "{error}");
}

#[test]
fn the_users_service_file_comes_before_the_systems() {
    let (home, system) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&home.path().join(".pg_service.conf"), "[a]\nhost=mine\n", 0o644);
    write(&system.path().join("pg_service.conf"), "[a]\nhost=no\n[b]\nhost=ours\n", 0o644);
    let dirs = [home.path(), system.path()].map(|dir| dir.to_str().unwrap().to_owned());
    let variables = [("HOME", dirs[0].as_str()), ("PGSYSCONFDIR", &dirs[1])];
    let host = |text: &str| resolve(text, &variables).unwrap().hosts()[0].to_string();
    assert_eq!(host("service=a"), "host \"mine\", port 5432");
    assert_eq!(host("service=b"), "host \"ours\", port 5432");
}

#[test]
fn every_host_gets_its_own_password_of_the_file() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".pgpass");
    write(&file, "a:5432:*:*:pa\nb:*:d:u:pb\nlocalhost:*:*:*:local\n", 0o600);
    let environment = environment(&[]).with_home(home.path());
    let passwords = |text: &str| -> Vec<Option<String>> {
        let config = Config::parse(text, &environment).unwrap();
        assert_eq!(config.warnings(), []);
        let shown = |p: &seawall_core::Secret| String::from_utf8(p.as_bytes().to_vec()).unwrap();
        config.hosts().iter().map(|host| host.password.as_ref().map(shown)).collect()
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(passwords("host=a,b,c user=u dbname=d"), [some("pa"), some("pb"), None]);
    assert_eq!(passwords("host=b user=u dbname=other"), [None]);
    assert_eq!(passwords("user=u"), [some("local"), some("local")]);
    assert_eq!(passwords("host=/var/run/postgresql user=u"), [some("local")]);
    assert_eq!(passwords("host=a password=given"), [some("given")]);

    write(&file, "*:*:*:*:x\n", 0o640);
    let config = Config::parse("host=a", &environment).unwrap();
    assert!(config.hosts()[0].password.is_none());
    assert!(matches!(config.warnings(), [PassfileWarning::TooOpen { mode: 0o640, .. }]));
    // Whoever fails for want of a password is told why the file did not help.
    let refused = crate::PgError::Auth("no password for \"u\"".to_owned());
    let told = config.with_passfile(refused).to_string();
    assert!(told.contains("is ignored: its mode is 0640"), "{told}");
    let directory = format!("host=a passfile={}", home.path().display());
    let config = Config::parse(&directory, &environment).unwrap();
    assert!(matches!(config.warnings(), [PassfileWarning::NotAPlainFile(_)]));
}

#[test]
fn passwords_are_never_shown() {
    const SECRET: &str = "hunter2";
    let conninfo: Conninfo = format!("host=h password={SECRET}").parse().unwrap();
    let config = conninfo.resolve(&environment(&[])).unwrap();
    let environment = environment(&[("PGPASSWORD", SECRET)]);
    let shown = format!("{conninfo:?} {config:?} {config} {environment:?}");
    assert!(!shown.contains(SECRET), "{shown}");
    for text in [
        "password=a hunter2",
        "password=a hunter2=b",
        "password='hunter2",
        "postgresql://u:a@hunter2@h/d",
        "postgresql://u:hunter2/@h/d",
        "postgresql://u:hunter2%@h/d",
        "host=h password=hunter2 port=x",
        // Another scheme, or none.
        "pgsql://u:hunter2@h/d",
        "pgsql://u:hunter2@h/d?sslmode=require",
        "jdbc:postgresql://h/d?password=hunter2",
        "u:hunter2@h/d?sslmode=require",
        // A mistyped port, and things that are taken for one.
        "postgresql://u:hunter2#h:5432/d",
        "postgresql://u:hunter2/d",
        "postgresql://h:hunter2/d",
        "host=h port=5432,password=hunter2",
        "host=h port=hunter2",
        "hostaddr=hunter2",
        "host=h connect_timeout=10;password=hunter2",
        "sslmode=require;password=hunter2",
        "target_session_attrs=hunter2",
        "require_auth=hunter2",
        // Separators that are none.
        "host=h;password=hunter2=x",
        "host=h,hunter2=x port=1",
        "hunter2='x",
        "postgresql://h/d?password=a&hunter2=b",
        "postgresql://h/d?password=a&hunter2",
        "postgresql://h/d?hunter2=b",
        "postgresql://h/d?hunter2%=b",
    ] {
        let error = resolve(text, &[]).unwrap_err();
        let shown = format!("{error} {error:?} {:?}", error.hint());
        assert!(!shown.contains(SECRET), "{text}: {shown}");
    }
}

fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn percent(value: &str) -> String {
    value.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

proptest! {
    #[test]
    fn what_is_quoted_or_encoded_comes_back(
        user in "\\PC{1,20}", password in "\\PC{1,20}", host in "[^,\u{0}]{1,20}", db in "\\PC{1,20}",
    ) {
        let pairs = format!(
            "user={} password={} host={} dbname={}",
            quote(&user), quote(&password), quote(&host), quote(&db),
        );
        let uri = format!(
            "postgresql://{}:{}@{}/{}",
            percent(&user), percent(&password), percent(&host), percent(&db),
        );
        let conninfo: Conninfo = pairs.parse().unwrap();
        prop_assert_eq!(conninfo.get("user"), Some(user.as_str()));
        prop_assert_eq!(conninfo.get("password"), Some(password.as_str()));
        prop_assert_eq!(conninfo.get("host"), Some(host.as_str()));
        prop_assert_eq!(conninfo.get("dbname"), Some(db.as_str()));
        prop_assert_eq!(uri.parse::<Conninfo>().unwrap(), conninfo);
    }

    #[test]
    fn no_string_makes_it_panic(text in any::<String>()) {
        let _ = resolve(&text, &[]);
        let _ = resolve(&format!("postgresql://{text}"), &[]);
        let _ = resolve(&format!("host={text}"), &[]);
    }
}

#[test]
fn a_connection_string_is_shown_without_its_secrets() {
    for (text, shown) in [
        ("password=hunter2 host=h user='a b'", "host=h user='a b'"),
        (
            "postgresql://u:hunter2@h:5433/d?sslmode=require",
            "dbname=d host=h port=5433 sslmode=require user=u",
        ),
        ("postgresql://h/d?password=hunter2", "dbname=d host=h"),
        ("pgsql://u:hunter2@h/d", "(a connection string that cannot be read)"),
        ("password=hunter2 hunter2", "(a connection string that cannot be read)"),
    ] {
        assert_eq!(masked_conninfo(text), shown, "{text}");
    }
    let has_secret = |text: &str| text.parse::<Conninfo>().unwrap().has_secret();
    assert!(has_secret("postgresql://u:hunter2@h/d") && has_secret("password=x"));
    assert!(!has_secret("postgresql://u@h/d") && !has_secret("password=''"));
}

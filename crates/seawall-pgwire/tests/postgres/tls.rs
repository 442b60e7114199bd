//! TLS with a real server and certificates of OpenSSL's making.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::server::{Server, connect};
use nix::sys::signal::Signal;
use seawall_core::{Code, Error};
use seawall_pgwire::{Config, Connection, Environment, PgError};

const HBA: &str = "local all all trust\nhostnossl all plain 127.0.0.1/32 trust\n\
    hostssl all certified all cert\nhostssl all scrammed all scram-sha-256\n\
    hostssl all trusted all trust\n";

fn openssl(dir: &Path, arguments: &str) {
    let arguments = arguments.split_whitespace();
    let output = Command::new("openssl").current_dir(dir).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and certificates it signed: for the server by name and address, with SHA-256,
/// SHA-384, of X.509 version 1, and for a client; and self-signed ones that name no host but in
/// their subject, with three kinds of key.
fn make_certificates(dir: &Path) {
    fs::write(dir.join("san"), "subjectAltName=DNS:db.test,IP:127.0.0.1\n").unwrap();
    fs::write(dir.join("other"), "subjectAltName=DNS:other.test\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(dir, &format!("req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=authority"));
    openssl(dir, &format!("req -x509 {key} -keyout self.key -out self.crt -subj /CN=localhost"));
    openssl(dir, &format!("req {key} -keyout server.key -out server.csr -subj /CN=server"));
    openssl(dir, &format!("req {key} -keyout client.key -out client.csr -subj /CN=certified"));
    let pss = "-newkey rsa:2048 -sha512 -sigopt rsa_padding_mode:pss -nodes";
    openssl(dir, &format!("req -x509 {pss} -keyout pss.key -out pss.crt -subj /CN=pss"));
    let ed25519 = "-newkey ed25519 -nodes";
    openssl(dir, &format!("req -x509 {ed25519} -keyout ed.key -out ed.crt -subj /CN=ed"));
    let sign = "x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 2";
    openssl(dir, &format!("{sign} -in server.csr -out good.crt -extfile san"));
    openssl(dir, &format!("{sign} -in server.csr -out sha384.crt -extfile san -sha384"));
    openssl(dir, &format!("{sign} -in server.csr -out other.crt -extfile other"));
    openssl(dir, &format!("{sign} -in server.csr -out version1.crt"));
    openssl(dir, &format!("{sign} -in client.csr -out client.crt -extfile other"));
    make_revocation_lists(dir);
}

/// Two lists of the authority's, an empty one and one that has the server's certificate; and two of
/// the self-signed certificate's own.
fn make_revocation_lists(dir: &Path) {
    let list = |name: &str, signer: &str, revoked: Option<&str>| {
        // With a number it is of version 2, as RFC 5280 has it.
        let config = format!(
            "[ca]\ndefault_ca = x\n[x]\ndatabase = {name}.db\ncrlnumber = {name}.number\n\
             default_md = sha256\n"
        );
        fs::write(dir.join(format!("{name}.cnf")), config).unwrap();
        fs::write(dir.join(format!("{name}.db")), "").unwrap();
        fs::write(dir.join(format!("{name}.number")), "01\n").unwrap();
        let ca = format!("ca -config {name}.cnf -cert {signer}.crt -keyfile {signer}.key");
        if let Some(revoked) = revoked {
            openssl(dir, &format!("{ca} -revoke {revoked}"));
        }
        openssl(dir, &format!("{ca} -gencrl -crldays 2 -out {name}.crl"));
    };
    list("none", "ca", None);
    list("revoked", "ca", Some("good.crt"));
    list("own", "self", None);
    list("own-revoked", "self", Some("self.crt"));
}

struct Setup {
    server: Server,
    dir: tempfile::TempDir,
}

impl Setup {
    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Gives the server another certificate.
    async fn present(&self, certificate: &str, key: &str) {
        for (from, to) in [(certificate, "server.crt"), (key, "server.key")] {
            self.server.write(to, &fs::read(self.dir.path().join(from)).unwrap());
        }
        let mut admin = self.server.admin().await;
        let loaded = "SELECT pg_conf_load_time()::text";
        let before: String = admin.query_value(loaded).await.unwrap();
        self.server.signal(Signal::SIGHUP);
        while admin.query_value::<String>(loaded).await.unwrap() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn connect(&self, options: &str) -> Result<Connection, PgError> {
        connect(&self.server.tcp(options)).await
    }

    async fn has_tls(&self, options: &str) -> bool {
        let mut session = self.connect(options).await.unwrap_or_else(|e| panic!("{options}: {e}"));
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        session.query_value(sql).await.unwrap()
    }

    async fn tls_problem(&self, options: &str) -> String {
        let error = self.connect(options).await.unwrap_err();
        assert_eq!(error.code(), Code::TlsFailed, "{options}: {error}");
        Error::from(error).to_string()
    }
}

#[tokio::test]
async fn tls_is_as_strict_as_sslmode_asks() {
    let dir = tempfile::tempdir().unwrap();
    make_certificates(dir.path());
    let server = Server::start("", HBA);
    let mut admin = server.admin().await;
    let users = "CREATE ROLE plain LOGIN; CREATE ROLE trusted LOGIN; CREATE ROLE certified LOGIN; \
                 CREATE ROLE scrammed LOGIN PASSWORD 'secret'";
    admin.simple_query(users).await.unwrap();
    let setup = Setup { server, dir };

    without_tls(&setup).await;
    for (name, content) in
        [("server.crt", "good.crt"), ("server.key", "server.key"), ("ca.crt", "ca.crt")]
    {
        setup.server.write(name, &fs::read(setup.dir.path().join(content)).unwrap());
    }
    admin.simple_query("ALTER SYSTEM SET ssl_ca_file = 'ca.crt'").await.unwrap();
    admin.simple_query("ALTER SYSTEM SET ssl = on").await.unwrap();
    setup.present("good.crt", "server.key").await;
    with_a_signed_certificate(&setup).await;
    channel_binding(&setup).await;
    client_certificates(&setup).await;
    setup.present("good.crt", "server.key").await;
    revoked_certificates(&setup).await;
    cancelling(&setup).await;
    other_certificates(&setup).await;
}

async fn without_tls(setup: &Setup) {
    assert!(!setup.has_tls("user=plain").await);
    assert!(!setup.has_tls("user=plain sslmode=disable").await);
    let problem = setup.tls_problem("user=plain sslmode=require").await;
    assert!(problem.contains("the server has none"), "{problem}");
    // Unix sockets never have TLS, whatever sslmode says.
    let dir = setup.server.socket_directory();
    assert!(
        connect(&setup.server.socket("user=trusted sslmode=verify-full")).await.is_ok(),
        "{dir:?}"
    );
}

async fn with_a_signed_certificate(setup: &Setup) {
    let (ca, own) = (setup.file("ca.crt"), setup.file("self.crt"));
    // Only PostgreSQL 17 and later understand TLS that begins unasked.
    let version = setup.server.admin().await.server_version_num();
    let direct = setup.connect("user=trusted sslmode=require sslnegotiation=direct").await;
    assert_eq!(direct.is_ok(), version >= 170_000, "{direct:?}");
    for options in ["user=trusted", "user=trusted sslmode=require", "user=trusted sslmode=allow"] {
        assert!(setup.has_tls(options).await, "{options}");
    }
    // pg_hba.conf lets this role in only without TLS.
    assert!(!setup.has_tls("user=plain").await);
    assert!(setup.connect("user=plain sslmode=require").await.is_err());
    for mode in ["verify-ca", "verify-full", "require"] {
        assert!(setup.has_tls(&format!("user=trusted sslmode={mode} sslrootcert={ca}")).await);
        let wrong = format!("user=trusted sslmode={mode} sslrootcert={own}");
        setup.tls_problem(&wrong).await;
    }
    let by_name = format!(
        "host=db.test hostaddr=127.0.0.1 user=trusted sslmode=verify-full sslrootcert={ca}"
    );
    assert!(setup.has_tls(&by_name).await);
    setup.tls_problem(&by_name.replace("db.test", "db2.test")).await;
    setup.tls_problem("user=trusted sslmode=verify-ca sslrootcert=/nowhere/root.crt").await;
    setup.tls_problem("user=trusted sslmode=verify-ca").await;
    for version in ["TLSv1.2", "TLSv1.3"] {
        let only = format!(
            "user=trusted sslmode=verify-full sslrootcert={ca} ssl_min_protocol_version={version} \
             ssl_max_protocol_version={version}"
        );
        let mut session = setup.connect(&only).await.unwrap();
        let sql = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        assert_eq!(session.query_value::<String>(sql).await.unwrap(), version);
    }
}

async fn channel_binding(setup: &Setup) {
    let login = "user=scrammed password=secret sslmode=require";
    assert!(setup.has_tls(&format!("{login} channel_binding=require")).await);
    assert!(setup.has_tls(&format!("{login} channel_binding=disable")).await);
    setup.present("sha384.crt", "server.key").await;
    assert!(setup.has_tls(&format!("{login} channel_binding=require")).await);
    let error = setup.connect("user=trusted sslmode=require channel_binding=require").await;
    assert_eq!(error.unwrap_err().code(), Code::AuthenticationFailed);
    let error =
        setup.connect("user=scrammed password=wrong sslmode=require channel_binding=require");
    assert_eq!(error.await.unwrap_err().sqlstate(), Some("28P01"));
}

async fn client_certificates(setup: &Setup) {
    let (cert, key) = (setup.file("client.crt"), setup.file("client.key"));
    let login = format!("user=certified sslmode=require sslcert={cert} sslkey={key}");
    assert!(setup.has_tls(&login).await);
    assert!(setup.connect("user=certified sslmode=require").await.is_err());
    assert!(setup.connect(&format!("{login} sslcertmode=disable")).await.is_err());
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(&key, open).unwrap();
    let problem = setup.tls_problem(&login).await;
    assert!(problem.contains("0644"), "{problem}");
}

async fn revoked_certificates(setup: &Setup) {
    let ca = setup.file("ca.crt");
    for mode in ["require", "verify-ca", "verify-full"] {
        let login = format!("user=trusted sslmode={mode} sslrootcert={ca}");
        let list = |name: &str| format!("{login} sslcrl={}", setup.file(name));
        assert!(setup.has_tls(&list("none.crl")).await, "{mode}");
        let problem = setup.tls_problem(&list("revoked.crl")).await;
        assert!(problem.to_lowercase().contains("revoked"), "{mode}: {problem}");
        // A list of somebody else's says nothing of this certificate, and that is not enough.
        setup.tls_problem(&list("own.crl")).await;
        setup.tls_problem(&list("missing.crl")).await;
    }
    // `root.crl` beside `root.crt` in the home directory is read unasked.
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join(".postgresql");
    fs::create_dir(&place).unwrap();
    fs::copy(setup.file("ca.crt"), place.join("root.crt")).unwrap();
    let text = format!(
        "host=127.0.0.1 port={} dbname=postgres user=trusted sslmode=verify-ca",
        setup.server.port
    );
    let environment = Environment::new(|_| None).with_os_user("x").with_home(home.path());
    let config = Config::parse(&text, &environment).unwrap();
    assert!(connect(&config).await.is_ok());
    fs::copy(setup.file("revoked.crl"), place.join("root.crl")).unwrap();
    let error = connect(&config).await.unwrap_err();
    assert_eq!(error.code(), Code::TlsFailed, "{error}");
}

async fn cancelling(setup: &Setup) {
    let mut session = setup.connect("user=trusted sslmode=require").await.unwrap();
    let limit = Duration::from_millis(100);
    let error = session.within(limit).simple_query("SELECT pg_sleep(30)").await.unwrap_err();
    assert!(matches!(error, PgError::Timeout(_)), "{error}");
    assert_eq!(session.query_value::<i32>("SELECT 1").await.unwrap(), 1);
}

async fn other_certificates(setup: &Setup) {
    let ca = setup.file("ca.crt");
    setup.present("other.crt", "server.key").await;
    assert!(setup.has_tls(&format!("user=trusted sslmode=verify-ca sslrootcert={ca}")).await);
    setup.tls_problem(&format!("user=trusted sslmode=verify-full sslrootcert={ca}")).await;

    // A self-signed certificate that is its own root, with the host only as its common name.
    setup.present("self.crt", "self.key").await;
    let own = setup.file("self.crt");
    let full = format!("user=trusted sslmode=verify-full sslrootcert={own}");
    assert!(setup.has_tls(&format!("host=localhost hostaddr=127.0.0.1 {full}")).await);
    setup.tls_problem(&full).await;

    let (list, revoked) = (setup.file("own.crl"), setup.file("own-revoked.crl"));
    let own_ca = format!("user=trusted sslmode=verify-ca sslrootcert={own}");
    assert!(setup.has_tls(&format!("{own_ca} sslcrl={list}")).await);
    setup.tls_problem(&format!("{own_ca} sslcrl={revoked}")).await;
    setup.tls_problem(&format!("{own_ca} sslcrl={}", setup.file("none.crl"))).await;

    // The hash of an RSASSA-PSS signature is one of its parameters; Ed25519 has none to bind to.
    let login = "user=scrammed password=secret sslmode=require";
    setup.present("pss.crt", "pss.key").await;
    assert!(setup.has_tls(&format!("{login} channel_binding=require")).await);
    setup.present("ed.crt", "ed.key").await;
    assert!(setup.has_tls(login).await);
    let error = setup.connect(&format!("{login} channel_binding=require")).await.unwrap_err();
    assert_eq!(error.code(), Code::AuthenticationFailed, "{error}");

    // Version 1 can be encrypted with and bound to, and is never trusted.
    setup.present("version1.crt", "server.key").await;
    assert!(setup.has_tls(&format!("{login} channel_binding=require")).await);
    setup.tls_problem(&format!("user=trusted sslmode=verify-ca sslrootcert={ca}")).await;
}

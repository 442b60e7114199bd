use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const ANYTHING: AllowedAuth = AllowedAuth { none: true, password: true, md5: true, scram: true };

fn login(password: Option<&Secret>) -> Login<'_> {
    Login {
        user: "joe",
        password,
        allowed: ANYTHING,
        channel_binding: ChannelBinding::Prefer,
        encrypted: false,
        endpoint: None,
        time: Duration::from_secs(10),
    }
}

/// An authentication request.
fn request(code: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len() + 8).unwrap();
    [b"R".as_slice(), &length.to_be_bytes(), &code.to_be_bytes(), data].concat()
}

/// How the login fares with a server that says just this.
async fn against(script: Vec<u8>, login: &Login<'_>) -> Result<(), PgError> {
    let (client, mut server) = tokio::io::duplex(64 << 10);
    server.write_all(&script).await.unwrap();
    let drain = tokio::spawn(async move {
        let mut sent = Vec::new();
        let _ = server.read_to_end(&mut sent).await;
        sent
    });
    let mut wire = MessageStream::new(Box::new(client) as Stream, 10_000);
    let result = authenticate(&mut wire, login).await;
    drop(wire);
    drain.await.unwrap();
    result
}

fn refusal(result: Result<(), PgError>) -> String {
    match result {
        Err(PgError::Auth(message)) => message,
        other => panic!("not a refusal: {other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_skips_its_proof_is_not_believed() {
    let password = Secret::new("secret");
    let login = login(Some(&password));
    let script = [request(10, b"SCRAM-SHA-256\0\0"), request(0, b"")].concat();
    let message = refusal(against(script, &login).await);
    assert!(message.contains("without proving"), "{message}");
    let script = [request(10, b"SCRAM-SHA-256\0\0"), request(3, b"")].concat();
    assert!(matches!(against(script, &login).await, Err(PgError::Protocol(_))));
    let script =
        [request(10, b"SCRAM-SHA-256\0\0"), request(11, b"r=other,s=AA==,i=4096")].concat();
    let message = refusal(against(script, &login).await);
    assert!(message.contains("nonce"), "{message}");
}

#[tokio::test]
async fn unknown_requests_are_refused() {
    let password = Secret::new("secret");
    let login = login(Some(&password));
    for code in [2, 6, 7, 9] {
        refusal(against(request(code, b""), &login).await);
    }
    assert!(matches!(against(request(99, b""), &login).await, Err(PgError::Protocol(_))));
    refusal(against(request(10, b"SCRAM-SHA-512\0\0"), &login).await);
    refusal(against(request(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"), &login).await);
}

#[tokio::test]
async fn a_password_is_only_sent_as_allowed() {
    let password = Secret::new("secret");
    let message = refusal(against(request(3, b""), &login(None)).await);
    assert!(message.contains("no password"), "{message}");
    let mut strict = login(Some(&password));
    strict.allowed.password = false;
    refusal(against(request(3, b""), &strict).await);
    strict.allowed = AllowedAuth { none: false, ..ANYTHING };
    refusal(against(request(0, b""), &strict).await);
    let mut binding = login(Some(&password));
    binding.channel_binding = ChannelBinding::Require;
    for code in [0, 3] {
        refusal(against(request(code, b""), &binding).await);
    }
    refusal(against(request(5, b"salt"), &binding).await);
}

#[test]
fn the_mechanism_follows_what_both_sides_can() {
    let mut login = login(None);
    let chosen =
        |login: &Login<'_>, plus| choose_mechanism(login, true, plus).map(|(name, _)| name);
    assert_eq!(chosen(&login, false).unwrap(), SCRAM_SHA_256);
    login.encrypted = true;
    // A certificate without a hash
    assert_eq!(chosen(&login, true).unwrap(), SCRAM_SHA_256);
    login.endpoint = Some(b"hash");
    assert_eq!(chosen(&login, true).unwrap(), SCRAM_SHA_256_PLUS);
    assert_eq!(chosen(&login, false).unwrap(), SCRAM_SHA_256);
    login.channel_binding = ChannelBinding::Disable;
    assert_eq!(chosen(&login, true).unwrap(), SCRAM_SHA_256);
    login.channel_binding = ChannelBinding::Require;
    assert!(chosen(&login, false).is_err());
}

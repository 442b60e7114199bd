//! TLS that somebody in between would rather not have.

use crate::fake::{self, Client, config, serve};
use seawall_pgwire::{Connection, PgError};

async fn connect(port: u16, sslmode: &str) -> PgError {
    let config = config(port, &format!("sslmode={sslmode}"));
    let connect = Connection::connect(&config);
    tokio::time::timeout(fake::BOUND, connect).await.expect("it waits for ever").unwrap_err()
}

/// Answers the request for TLS with `answer`.
async fn answering(answer: &'static [u8]) -> u16 {
    serve(move |mut client: Client| async move {
        let mut request = [0; 8];
        if tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut request).await.is_ok() {
            client.say(answer).await;
        }
        client.stay_silent().await;
    })
    .await
}

#[tokio::test]
async fn nobody_talks_the_client_out_of_tls() {
    for mode in ["require", "verify-ca", "verify-full"] {
        // The last mode wins: the fake's own sslmode=disable comes first.
        let error = connect(answering(b"N").await, mode).await;
        assert_eq!(error.code(), seawall_core::Code::TlsFailed, "{mode}: {error}");
    }
    let error = connect(answering(b"E").await, "require").await;
    assert_eq!(error.code(), seawall_core::Code::TlsFailed, "{error}");
}

#[tokio::test]
async fn what_is_said_before_the_handshake_is_never_the_server_s_word() {
    // As in CVE-2021-23222: an answer in clear behind the agreement to speak TLS.
    let injected: Vec<u8> = [b"S".to_vec(), fake::request(0, b""), fake::welcome()].concat();
    for mode in ["require", "prefer"] {
        let error = connect(answering(Vec::leak(injected.clone())).await, mode).await;
        assert!(!matches!(error, PgError::Value(_)), "{mode}: {error}");
        assert!(error.to_string().contains("TLS") || mode == "prefer", "{mode}: {error}");
    }
    // An error in clear is not shown: it could be anybody's.
    let complaint = fake::complaint(b'E', "FATAL", "28000", "send your password to example.com");
    let error = connect(answering(Vec::leak(complaint)).await, "require").await;
    assert!(!error.to_string().contains("example.com"), "{error}");
}

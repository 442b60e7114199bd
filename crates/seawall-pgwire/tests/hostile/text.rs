//! What a server says is shown, and does nothing else.

use crate::fake::{self, Client, ask, serve};
use seawall_core::Error;
use seawall_pgwire::PgError;

/// Adds a line, colours it, takes one back, turns the direction of reading, and ends the line above.
const TEXT: &str = "gone\nOK  main  all is well\r\x1b[2K\x1b[32mOK\u{9b}1A\u{202e}ko\u{2028}OK\x07";

fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || "\u{202e}\u{2028}".contains(c))
}

#[tokio::test]
async fn a_refusal_is_one_line_without_control_characters() {
    let port = serve(|mut client: Client| async move {
        client.startup_packet().await;
        let fields =
            format!("SFATAL\0VFA\nTAL\0C28\n00\0M{TEXT}\0D{TEXT}\0H{TEXT}\0W{TEXT}\0R{TEXT}\0\0");
        client.say(&fake::message(b'E', fields.as_bytes())).await;
        client.stay_silent().await;
    })
    .await;
    let error = Error::from(ask(port, "").await.unwrap_err());
    assert!(error.to_string().contains("gone OK"), "{error}");
    assert!(is_plain(&error.chain()), "{}", error.chain());
    assert!(is_plain(&format!("{:?}", error.hint())), "{:?}", error.hint());
}

#[tokio::test]
async fn an_error_within_a_session_is_one_line_too() {
    for (severity, tag) in [("ERROR", b'E'), ("FATAL", b'E'), ("WARNING", b'N')] {
        let port = serve(move |mut client: Client| async move {
            if client.until_question().await.is_some() {
                client.say(&fake::complaint(tag, severity, "57P01", TEXT)).await;
                client
                    .say(if severity == "ERROR" { fake::ready() } else { Vec::new() }.as_slice())
                    .await;
            }
        })
        .await;
        let error = ask(port, "").await.unwrap_err();
        assert!(is_plain(&error.to_string()), "{error}");
    }
}

#[tokio::test]
async fn values_names_and_settings_are_plain_when_they_are_text() {
    let port = serve(|mut client: Client| async move {
        if client.until_question().await.is_some() {
            client.say(&fake::rows(&["x"], &[&[TEXT]])).await;
        }
        client.stay_silent().await;
    })
    .await;
    let value = ask(port, "").await.unwrap();
    assert!(value.starts_with("gone OK") && is_plain(&value), "{value}");

    // A value that is something else than asked for is shown in the error.
    let port = serve(|mut client: Client| async move {
        if client.until_question().await.is_some() {
            client.say(&fake::rows(&[TEXT, TEXT], &[&[TEXT, TEXT]])).await;
        }
        client.stay_silent().await;
    })
    .await;
    let mut session = seawall_pgwire::Connection::connect(&fake::config(port, "")).await.unwrap();
    let row = session.query_one("SELECT 1").await.unwrap();
    let error = row.get::<i32>(TEXT).unwrap_err();
    assert!(is_plain(&error.to_string()), "{error}");
    assert_eq!(row.bytes(TEXT).unwrap(), Some(TEXT.as_bytes()), "bytes stay bytes");
}

#[tokio::test]
async fn a_long_error_is_cut() {
    let port = serve(|mut client: Client| async move {
        if client.until_question().await.is_some() {
            let long = "x".repeat(300 << 10);
            client.say(&fake::complaint(b'E', &long, "22012", &long)).await;
            client.say(&fake::ready()).await;
        }
        client.stay_silent().await;
    })
    .await;
    let error = ask(port, "").await.unwrap_err();
    assert!(matches!(error, PgError::Server(_)), "{error:.100}");
    assert!(error.to_string().len() < 10_000, "{} bytes", error.to_string().len());
}

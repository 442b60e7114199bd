//! Servers that would have a password, or let in without knowing it.

use std::time::{Duration, Instant};

use crate::fake::{self, BOUND, Client, ask, serve, within_bound};
use seawall_core::Code;
use seawall_pgwire::PgError;

/// A SCRAM server that follows the client's first message with `rest`: salt and iterations.
async fn scram(rest: &'static str, last: &'static [u8]) -> u16 {
    serve(move |mut client: Client| async move {
        client.startup_packet().await;
        client.say(&fake::request(10, b"SCRAM-SHA-256\0\0")).await;
        let Some((b'p', first)) = client.message().await else { return };
        let first = String::from_utf8_lossy(&first).into_owned();
        let nonce = first.split("r=").nth(1).unwrap_or_default().to_owned();
        client.say(&fake::request(11, format!("r={nonce}more,{rest}").as_bytes())).await;
        if client.message().await.is_some() {
            client.say(last).await;
        }
        client.stay_silent().await;
    })
    .await
}

async fn refused(port: u16) -> String {
    let error = ask(port, "password=secret").await.unwrap_err();
    assert_eq!(error.code(), Code::AuthenticationFailed, "{error}");
    error.to_string()
}

#[tokio::test]
async fn scram_iterations_are_a_number_that_protects() {
    for rest in ["s=c2FsdA==,i=0", "s=c2FsdA==,i=-1", "s=c2FsdA==,i=99999999999", "s=c2FsdA==,i=x"]
    {
        let message = refused(scram(rest, b"").await).await;
        assert!(message.contains("iteration"), "{rest}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_iterations_than_there_is_time_for_are_refused_with_what_to_do() {
    let begun = Instant::now();
    let error =
        ask(scram("s=c2FsdA==,i=2147483647", b"").await, "password=secret").await.unwrap_err();
    within_bound(begun);
    let hint = format!("{:?}", error.hint());
    assert!(error.to_string().contains("2147483647"), "{error}");
    assert!(hint.contains("scram_iterations") && hint.contains("connect_timeout"), "{hint}");
}

/// The time that is needed is not taken from others: a runtime of one thread goes on meanwhile.
#[tokio::test]
async fn a_quarter_of_a_million_iterations_are_counted_beside_other_work() {
    let port = scram("s=c2FsdA==,i=250000", &[]).await;
    let ticks = async {
        let mut interval = tokio::time::interval(Duration::from_millis(5));
        loop {
            interval.tick().await;
        }
    };
    // The server says nothing after the proof: the client has done its sum and waits.
    let outcome = tokio::select! {
        outcome = ask(port, "password=secret") => outcome,
        () = ticks => unreachable!(),
        () = tokio::time::sleep(BOUND) => panic!("it waits for ever"),
    };
    let error = outcome.unwrap_err();
    assert!(!error.to_string().contains("iteration"), "{error}");
}

#[tokio::test]
async fn a_server_that_cannot_sign_is_not_believed() {
    let forged = fake::request(12, b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let forged: &'static [u8] =
        Vec::leak([forged, fake::request(0, b""), fake::welcome()].concat());
    let message = refused(scram("s=c2FsdA==,i=4096", forged).await).await;
    assert!(message.contains("prove"), "{message}");
    // One that does not even try.
    let skipped: &'static [u8] = Vec::leak([fake::request(0, b""), fake::welcome()].concat());
    let message = refused(scram("s=c2FsdA==,i=4096", skipped).await).await;
    assert!(message.contains("without proving"), "{message}");
    // One that asks for the proof twice.
    let twice: &'static [u8] = Vec::leak(fake::request(11, b"r=x,s=c2FsdA==,i=4096"));
    let error = ask(scram("s=c2FsdA==,i=4096", twice).await, "password=secret").await.unwrap_err();
    assert!(matches!(&error, PgError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn a_nonce_that_does_not_continue_ours_is_refused() {
    let port = serve(|mut client: Client| async move {
        client.startup_packet().await;
        client.say(&fake::request(10, b"SCRAM-SHA-256\0\0")).await;
        client.message().await;
        client.say(&fake::request(11, b"r=other,s=c2FsdA==,i=4096")).await;
        client.stay_silent().await;
    })
    .await;
    let message = refused(port).await;
    assert!(message.contains("nonce"), "{message}");
}

#[tokio::test]
async fn a_cancelled_question_ends_though_nobody_takes_the_cancel_request() {
    let begun = Instant::now();
    let port = serve(|mut client: Client| async move {
        // The second connection, with the request to cancel, is accepted and left alone as well.
        if client.until_question().await.is_some() {
            client.stay_silent().await;
        }
        client.stay_silent().await;
    })
    .await;
    let error = ask(port, "").await.unwrap_err();
    within_bound(begun);
    assert!(matches!(error, PgError::Lost { .. }), "{error}");
}

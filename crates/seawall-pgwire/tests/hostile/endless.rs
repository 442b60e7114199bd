//! Servers that never come to an end, or never begin.

use std::time::Instant;

use crate::fake::{self, Client, ask, peak_growth, serve, within_bound};
use seawall_pgwire::PgError;

const MIB: u64 = 1 << 20;

/// What an answer may cost: the limits are 64 MiB kept and 16 MiB on the way, and a vector that
/// grows holds its old self too.
const MEMORY: u64 = 256 * MIB;

/// A server that answers the question with `answer`, again and again.
async fn endless(answer: Vec<u8>) -> (Result<String, PgError>, u64) {
    let port = serve(move |mut client: Client| {
        let answer = answer.clone();
        async move {
            if client.until_question().await.is_some() {
                client.say_for_ever(&answer).await;
            }
        }
    })
    .await;
    let begun = Instant::now();
    let (answer, grown) = peak_growth(ask(port, "")).await;
    within_bound(begun);
    (answer, grown)
}

async fn ends_within_bounds(what: &str, answer: Vec<u8>) -> PgError {
    let (answer, grown) = endless(answer).await;
    let error = answer.unwrap_err();
    assert!(grown < MEMORY, "{what}: {} MiB were held", grown / MIB);
    assert!(!matches!(error, PgError::Server(_)), "{what}: {error}");
    error
}

/// As long as a message may be that has to be read whole.
fn long() -> String {
    "x".repeat(900 << 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_answers_without_end_are_cut_off() {
    let many = fake::message(b'I', b"").repeat(20_000);
    ends_within_bounds("EmptyQueryResponse", many).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_tags_are_short() {
    let error = ends_within_bounds("CommandComplete", fake::complete(&"x".repeat(1 << 20))).await;
    assert!(matches!(error, PgError::TooLarge(_)), "{error}");
    ends_within_bounds("CommandComplete", fake::complete(&"x".repeat(20_000)).repeat(20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameter_values_are_bounded_one_by_one_and_in_sum() {
    let long = fake::parameter("application_name", &"x".repeat(1 << 20));
    let error = ends_within_bounds("one value", long).await;
    assert!(matches!(error, PgError::TooLarge(_)), "{error}");
    let many: Vec<u8> = (0..1000)
        .flat_map(|number| fake::parameter(&format!("name{number}"), &"x".repeat(20_000)))
        .collect();
    let error = ends_within_bounds("many values", many).await;
    assert!(error.to_string().contains("parameters"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_does_not_hold_the_notices_around_it() {
    let notice = fake::complaint(b'N', "NOTICE", "00000", &long());
    let between = [fake::row(&["1"]), notice].concat();
    let port = serve(move |mut client: Client| {
        let between = between.clone();
        async move {
            if client.until_question().await.is_some() {
                client.say(&fake::columns(&["x"])).await;
                client.say_for_ever(&between).await;
            }
        }
    })
    .await;
    let (answer, grown) = peak_growth(ask(port, "")).await;
    answer.unwrap_err();
    assert!(grown < MEMORY, "{} MiB were held", grown / MIB);
    // Nor are notices of 30 MB read at all.
    let notice = fake::complaint(b'N', "NOTICE", "00000", &"x".repeat(30 << 20));
    let error = ends_within_bounds("NoticeResponse", notice).await;
    assert!(matches!(error, PgError::TooLarge(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_notices_and_notifications_without_end_are_cut_off() {
    let notice = fake::complaint(b'N', "NOTICE", "00000", "again");
    ends_within_bounds("NoticeResponse", notice.repeat(100)).await;
    let error = fake::complaint(b'E', "ERROR", "22012", &long());
    ends_within_bounds("ErrorResponse", error).await;
    let notification = fake::message(b'A', b"\0\0\0\x01channel\0payload\0");
    ends_within_bounds("NotificationResponse", notification.repeat(100)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn result_sets_and_rows_without_end_are_cut_off() {
    let set = [fake::columns(&["x"]), fake::complete("SELECT 0")].concat();
    ends_within_bounds("RowDescription", set.repeat(1000)).await;
    let names: Vec<String> = (0..30_000).map(|number| format!("c{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    ends_within_bounds("wide sets", [fake::columns(&names), fake::complete("S")].concat()).await;
    ends_within_bounds("descriptions alone", fake::columns(&["x"]).repeat(1000)).await;
    let port = serve(|mut client: Client| async move {
        if client.until_question().await.is_some() {
            client.say(&fake::columns(&["x"])).await;
            client.say_for_ever(&fake::row(&[""]).repeat(1000)).await;
        }
    })
    .await;
    let (answer, grown) = peak_growth(ask(port, "")).await;
    answer.unwrap_err();
    assert!(grown < MEMORY, "{} MiB were held", grown / MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copying_without_end_is_cut_off() {
    ends_within_bounds("CopyInResponse", fake::message(b'G', &[0, 0, 0])).await;
    let data = fake::message(b'd', &[0; 10_000]);
    ends_within_bounds("CopyData", [fake::message(b'H', &[0, 0, 0]), data].concat()).await;
    ends_within_bounds("CopyBothResponse", fake::message(b'W', &[0, 0, 0])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_is_given_up_wherever_it_does() {
    for silent_from in 0..5 {
        let port = serve(move |mut client: Client| async move {
            if silent_from > 0 {
                client.startup_packet().await;
            }
            if silent_from > 1 {
                client.say(&fake::request(0, b"")).await;
            }
            if silent_from > 2 {
                client.say(&fake::welcome()).await;
            }
            if silent_from > 3 && client.question().await.is_some() {
                client.say(&fake::columns(&["x"])).await;
            }
            client.stay_silent().await;
        })
        .await;
        let begun = Instant::now();
        let error = ask(port, "").await.unwrap_err();
        within_bound(begun);
        let (_, said) = (silent_from, error.to_string());
        assert!(said.contains(" s"), "silent from {silent_from}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_without_end_is_cut_off() {
    for again in [
        fake::complaint(b'N', "NOTICE", "00000", "wait"),
        [fake::request(0, b""), fake::parameter("a", "b")].concat(),
        [fake::request(5, b"salt")].concat(),
        [fake::request(10, b"SCRAM-SHA-256\0\0")].concat(),
    ] {
        let port = serve(move |mut client: Client| {
            let again = again.clone();
            async move {
                client.startup_packet().await;
                client.say_for_ever(&again).await;
            }
        })
        .await;
        let begun = Instant::now();
        let (answer, grown) = peak_growth(ask(port, "password=secret")).await;
        answer.unwrap_err();
        within_bound(begun);
        assert!(grown < 32 * MIB, "{} MiB were held", grown / MIB);
    }
}

#[tokio::test]
async fn a_message_without_end_is_refused_by_its_length() {
    for tag in [b'D', b'T', b'C', b'S', b'Z', b'E', b'N', b'A', b'd', b'?'] {
        let port = serve(move |mut client: Client| async move {
            if client.until_question().await.is_some() {
                client.say(&[tag, 0x7f, 0xff, 0xff, 0xff]).await;
                client.say_for_ever(&[0; 4096]).await;
            }
        })
        .await;
        let (answer, grown) = peak_growth(ask(port, "")).await;
        let error = answer.unwrap_err();
        assert!(matches!(error, PgError::TooLarge(_)), "{}: {error}", char::from(tag));
        assert!(grown < 32 * MIB, "{} MiB were held", grown / MIB);
    }
    // Nor is a length less than that of the field it stands in.
    let port = serve(|mut client: Client| async move {
        if client.until_question().await.is_some() {
            client.say(&[b'D', 0, 0, 0, 3]).await;
        }
        client.stay_silent().await;
    })
    .await;
    assert!(matches!(ask(port, "").await, Err(PgError::Protocol(_))));
}

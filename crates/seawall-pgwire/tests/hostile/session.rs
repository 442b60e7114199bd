//! What a fresh session is asked about itself, and hosts that share their time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::fake::{self, Client, ask, config, serve};
use seawall_core::Code;
use seawall_pgwire::{Config, Connection, Environment, PgError};

/// Answers the question about the session.
async fn tell(client: &mut Client, pid: &str, search_path: &str, timeouts: &str) {
    assert!(client.message().await.is_some());
    let names = ["pid", "search_path", "port", "timeouts"];
    client.say(&fake::rows(&names, &[&[pid, search_path, "5433", timeouts]])).await;
}

async fn answer_one(client: &mut Client) {
    if client.question().await.is_some() {
        client.say(&fake::rows(&["x"], &[&["1"]])).await;
    }
    client.stay_silent().await;
}

#[tokio::test]
async fn a_limit_of_a_major_to_come_is_taken_off_with_another_login() {
    let packets = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&packets);
    let port = serve(move |mut client: Client| {
        let seen = Arc::clone(&seen);
        async move {
            let packet = client.startup_packet().await;
            let packet = String::from_utf8_lossy(&packet).replace('\0', " ");
            let off = packet.contains(" coffee_timeout 0 ") && packet.contains(" tea_timeout 0 ");
            seen.lock().unwrap().push(packet);
            client.say(&[fake::request(0, b""), fake::welcome()].concat()).await;
            let in_force = if off { "" } else { "coffee_timeout tea_timeout" };
            tell(&mut client, "4711", "", in_force).await;
            answer_one(&mut client).await;
        }
    })
    .await;
    assert_eq!(ask(port, "").await.unwrap(), "1");
    let packets = packets.lock().unwrap();
    assert_eq!(packets.len(), 2, "{packets:?}");
    for packet in packets.iter() {
        assert!(packet.contains(" search_path  statement_timeout 0 lock_timeout 0 "), "{packet}");
    }
}

#[tokio::test]
async fn a_session_that_is_cut_before_it_can_tell_is_tried_again_without_known_limits() {
    let port = serve(move |mut client: Client| async move {
        let packet = client.startup_packet().await;
        let packet = String::from_utf8_lossy(&packet).replace('\0', " ");
        client.say(&[fake::request(0, b""), fake::welcome()].concat()).await;
        // It is a 15, which knows this limit and no transaction_timeout.
        if !packet.contains(" idle_session_timeout 0 ") || packet.contains(" transaction_timeout ")
        {
            let text = "terminating connection due to idle-session timeout";
            client.say(&fake::complaint(b'E', "FATAL", "57P05", text)).await;
            return;
        }
        answer_one(&mut client).await;
    })
    .await;
    assert_eq!(ask(port, "").await.unwrap(), "1");
}

#[tokio::test]
async fn a_limit_that_stays_is_an_error_and_not_a_loop() {
    let port = serve(|mut client: Client| async move {
        client.let_in().await;
        tell(&mut client, "4711", "", "coffee_timeout").await;
        client.stay_silent().await;
    })
    .await;
    let error = ask(port, "").await.unwrap_err();
    assert!(error.to_string().contains("coffee_timeout"), "{error}");
}

#[tokio::test]
async fn another_process_or_another_path_is_a_pooler() {
    for (pid, search_path) in [("4712", ""), ("4711", "\"$user\", public")] {
        let port = serve(move |mut client: Client| async move {
            client.let_in().await;
            tell(&mut client, pid, search_path, "").await;
            client.stay_silent().await;
        })
        .await;
        let error = ask(port, "").await.unwrap_err();
        assert_eq!(error.code(), Code::PoolerInBetween, "{error}");
        assert!(format!("{:?}", error.hint()).contains("5433"), "{:?}", error.hint());
    }
}

#[tokio::test]
async fn a_dead_host_does_not_use_up_the_time_of_a_living_one() {
    let dead = serve(|mut client: Client| async move { client.stay_silent().await }).await;
    let living = serve(|mut client: Client| async move {
        if client.until_question().await.is_some() {
            client.say(&fake::rows(&["x"], &[&["1"]])).await;
        }
        client.stay_silent().await;
    })
    .await;
    let hosts =
        format!("host=127.0.0.1,127.0.0.1 port={dead},{living} sslmode=disable connect_timeout=30");
    let environment = Environment::new(|_| None).with_os_user("postgres");
    let total = Duration::from_secs(4);
    let both = Config::parse(&hosts, &environment).unwrap().with_time_to_connect(total);
    let begun = Instant::now();
    let mut session = Connection::connect(&both).await.unwrap();
    assert_eq!(session.query_value::<i32>("SELECT 1").await.unwrap(), 1);
    assert!(begun.elapsed() < total, "{:?}", begun.elapsed());

    // Two dead ones take no longer than they may together.
    let hosts = hosts.replace(&living.to_string(), &dead.to_string());
    let total = Duration::from_secs(1);
    let both = Config::parse(&hosts, &environment).unwrap().with_time_to_connect(total);
    let error = tokio::time::timeout(fake::BOUND, Connection::connect(&both)).await.unwrap();
    let Err(PgError::Connect { attempts }) = error else { panic!("{error:?}") };
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    // And one alone has its `connect_timeout` as before.
    assert!(Connection::connect(&config(dead, "")).await.is_err());
}

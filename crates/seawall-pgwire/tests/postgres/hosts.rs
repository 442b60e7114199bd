//! Several hosts and `target_session_attrs`, with a primary and a standby.

use crate::server::{Server, config, connect};
use seawall_pgwire::PgError;

#[tokio::test]
async fn the_session_is_of_the_kind_asked_for() {
    let primary = Server::start("", "local all all trust\nlocal replication all trust\n");
    let standby = primary.start_standby();
    let (primary_dir, standby_dir) = (primary.socket_directory(), standby.socket_directory());
    let hosts = format!(
        "host=/nowhere,{},{} port=1,{},{} user=postgres dbname=postgres",
        standby_dir.display(),
        primary_dir.display(),
        standby.port,
        primary.port,
    );
    let on_standby = |attrs: &str| {
        let config = config(&format!("{hosts} target_session_attrs={attrs}"));
        async move {
            let mut session = connect(&config).await?;
            session.query_value::<bool>("SELECT pg_is_in_recovery()").await
        }
    };
    for (attrs, expected) in [
        ("any", true),
        ("read-write", false),
        ("read-only", true),
        ("primary", false),
        ("standby", true),
        ("prefer-standby", true),
    ] {
        assert_eq!(on_standby(attrs).await.unwrap(), expected, "{attrs}");
    }

    let dir = primary_dir.display();
    let alone = format!("host={dir} port={} user=postgres dbname=postgres", primary.port);
    connect(&config(&format!("{alone} target_session_attrs=prefer-standby"))).await.unwrap();
    let error =
        connect(&config(&format!("{alone} target_session_attrs=standby"))).await.unwrap_err();
    let PgError::Connect { attempts } = &error else { panic!("{error}") };
    assert!(matches!(attempts[..], [_]) && error.to_string().contains("not a standby"), "{error}");
    let read_only = format!("{alone} options='-c default_transaction_read_only=on'");
    connect(&config(&format!("{read_only} target_session_attrs=read-only"))).await.unwrap();
    let error = connect(&config(&format!("{read_only} target_session_attrs=read-write"))).await;
    assert!(error.unwrap_err().to_string().contains("read-only"));
}

//! Lines that are made at the same moment by servers that do not know of each other.

use std::sync::Arc;

use jiff::Timestamp;
use seawall_core::{BranchNumber, ClusterName, Code, Error, LineId, Result, SystemId};
use seawall_engine::adopt::{Adoption, adopt, make_first_line};
use seawall_pgdata::control::ControlFile;
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_repo::{CreateOptions, Repository};
use seawall_store::{OpenOptions, open_or_create};
use tempfile::TempDir;
use tokio::sync::Barrier;

const CONTROL: &[u8] = include_bytes!("../../seawall-pgdata/tests/golden/pg_control.15.bin");
const FIRST: BranchNumber = BranchNumber(0);

fn server(system_id: u64) -> ControlFile {
    ControlFile { system_id: SystemId(system_id), ..ControlFile::parse(CONTROL).unwrap() }
}

fn main() -> ClusterName {
    "main".parse().unwrap()
}

async fn repository() -> (TempDir, Repository) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display()).parse().unwrap();
    let key = Unlock::KeyFile(KeyFile::generate().unwrap());
    let options = CreateOptions { unlock: &key, label: "test", now: Timestamp::UNIX_EPOCH };
    let store = open_or_create(&url, &OpenOptions::default()).await.unwrap();
    (directory, Repository::create(store, &options).await.unwrap())
}

/// The system identifiers of the lines there are.
async fn lines(repository: &Repository) -> Vec<u64> {
    let lines = repository.lines().await.unwrap().into_iter();
    lines.map(|(_, line)| line.system_id.0).collect()
}

async fn init(repository: &Repository, system_id: u64) -> Result<bool> {
    make_first_line(repository, &main(), &server(system_id), FIRST).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_servers_that_are_given_one_name_at_once_at_most_one_has_it() {
    for round in 0..30 {
        let (_directory, repository) = repository().await;
        let start = Arc::new(Barrier::new(2));
        let racing = [7, 8].map(|system_id| {
            let (repository, start) = (repository.clone(), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                (system_id, init(&repository, system_id).await)
            })
        });
        let mut winners = Vec::new();
        for racer in racing {
            match racer.await.unwrap() {
                (winner, Ok(is_new)) => {
                    assert!(is_new);
                    winners.push(winner);
                }
                (_, Err(error)) => assert_eq!(error.code(), Code::ClusterMismatch, "{error}"),
            }
        }
        assert!(winners.len() <= 1, "round {round}: both have the name");
        assert_eq!(lines(&repository).await, winners, "round {round}: who lost left its line");
        // And it stays so, whoever tries again.
        let again = [init(&repository, 7).await, init(&repository, 8).await];
        let refused: Vec<Code> =
            again.iter().filter_map(|it| it.as_ref().err()).map(Error::code).collect();
        assert_eq!(refused, [Code::ClusterMismatch], "round {round}");
    }
}

#[tokio::test]
async fn of_two_servers_that_are_adopted_at_once_the_later_is_told_and_leaves_nothing() {
    let (_directory, repository) = repository().await;
    init(&repository, 7).await.unwrap();
    let line = |system_id| LineId { system_id: SystemId(system_id), branch: FIRST };
    // Both have looked before either made its line, as after two upgrades of one cluster.
    let planned = |system_id| Adoption::New { line: line(system_id), before: line(7) };
    adopt(&repository, &main(), &server(8), planned(8)).await.unwrap();
    let refused = adopt(&repository, &main(), &server(9), planned(9)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ObjectExists);
    assert!(refused.message().contains("8-0"), "{refused:?}");
    assert_eq!(lines(&repository).await, [7, 8]);
    // Once it is known which server it is, it is adopted after the other.
    let after = Adoption::New { line: line(9), before: line(8) };
    adopt(&repository, &main(), &server(9), after).await.unwrap();
}

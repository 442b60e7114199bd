use std::fs::File;

use rustix::fs::{Advice, fadvise};

use super::*;
use crate::direct::{Cached, cached};

#[tokio::test]
async fn a_large_range_is_the_same_from_the_cache_and_from_the_disk_and_leaves_the_cache_alone() {
    let (directory, store) = temporary_store().await;
    let bytes: Vec<u8> = (0..(3u32 << 20) + 123).map(|index| (index % 251) as u8).collect();
    let end = bytes.len() as u64;
    store.create(&path("object"), bytes.clone().into()).await.unwrap();
    let file = File::open(directory.path().join("object")).unwrap();
    for range in [0..end, 1..end, 4096..1 << 20, 777..777 + (300 << 10), end - (300 << 10)..end] {
        let expected = &bytes[range.start as usize..range.end as usize];
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let before = cached(&file, 0, end);
        assert!(store.read_range(&path("object"), range.clone()).await.unwrap() == expected);
        assert_eq!(cached(&file, 0, end), before, "{range:?}");
        std::fs::read(directory.path().join("object")).unwrap();
        assert_eq!(cached(&file, 0, end), Cached::All);
        assert!(store.read_range(&path("object"), range).await.unwrap() == expected);
    }
}

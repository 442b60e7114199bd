//! What every store has to do, as tests that any adapter can be put to.
//!
//! Each case gets an empty store of its own. The adapter's test calls [`run_all`] on a tokio
//! runtime; a case that finds a broken promise panics, and the panic names it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation, reason = "its objects are small")]

mod creating;
mod listing;
mod reading;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::{ObjectInfo, ObjectPath, ObjectPrefix, Store};

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One promise of [`Store`], and the story that tests it.
#[derive(Clone, Copy)]
pub struct Case {
    /// The promise, as the name of a function.
    pub name: &'static str,
    run: fn(Arc<dyn Store>) -> Running,
}

impl Case {
    /// Runs the case against an empty store.
    ///
    /// # Panics
    /// If the store breaks the promise.
    pub async fn run(&self, store: Arc<dyn Store>) {
        (self.run)(store).await;
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! cases {
    ($($module:ident :: $name:ident),* $(,)?) => {
        /// Every case there is.
        pub const CASES: &[Case] = &[
            $(Case { name: stringify!($name), run: |store| Box::pin($module::$name(store)) }),*
        ];
    };
}

cases! {
    creating::what_was_created_can_be_read_back,
    creating::an_existing_object_is_never_overwritten,
    creating::of_sixteen_creators_exactly_one_wins,
    creating::a_large_object_is_invisible_before_it_is_finished,
    creating::a_large_object_keeps_the_order_of_its_parts,
    creating::a_large_object_never_replaces_another,
    creating::an_empty_object_is_an_object,
    creating::an_abandoned_large_object_leaves_nothing,
    creating::a_deleted_object_is_gone_and_its_name_free,
    creating::many_objects_are_deleted_at_once,
    reading::a_missing_object_is_not_found,
    reading::a_range_is_exact_or_an_error,
    reading::the_end_of_an_object_comes_with_its_length,
    reading::many_readers_see_the_same_bytes,
    reading::every_allowed_name_is_kept_as_it_is,
    reading::the_store_knows_size_and_age,
    listing::an_empty_store_lists_nothing,
    listing::a_listing_is_in_byte_order_of_whole_paths,
    listing::a_prefix_ends_at_a_slash,
    listing::pages_can_start_anywhere,
    listing::children_are_the_first_components_below_a_prefix,
    listing::thousands_of_objects_are_listed_once_each,
}

/// Runs every case against a store of its own.
///
/// # Panics
/// At the first case whose promise the store breaks, naming it.
pub async fn run_all<F, S>(make: F)
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn Store>>,
{
    for case in CASES {
        let store = make().await;
        let running = tokio::spawn((case.run)(store));
        if let Err(error) = running.await {
            panic!("the store fails {}: {error}", case.name);
        }
    }
}

fn path(text: &str) -> ObjectPath {
    ObjectPath::new(text).unwrap()
}

fn below(text: &str) -> ObjectPrefix {
    ObjectPrefix::below(path(text))
}

/// Bytes that differ from place to place, so that a swapped or repeated part is noticed.
fn patterned(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// Everything below a prefix, page by page; checks what every page has to keep.
async fn all(
    store: &dyn Store,
    prefix: &ObjectPrefix,
    start_after: Option<ObjectPath>,
    limit: usize,
) -> Vec<ObjectInfo> {
    let mut objects: Vec<ObjectInfo> = Vec::new();
    let mut after = start_after;
    loop {
        let page = store.list(prefix, after.as_ref(), limit).await.unwrap();
        assert!(page.objects.len() <= limit, "a page is longer than asked for");
        objects.extend(page.objects);
        match page.next {
            None => return objects,
            Some(next) => {
                assert!(Some(&next) > after.as_ref(), "the listing does not move on from {next}");
                after = Some(next);
            }
        }
    }
}

async fn names(store: &dyn Store, prefix: &ObjectPrefix, limit: usize) -> Vec<String> {
    let objects = all(store, prefix, None, limit).await;
    objects.into_iter().map(|object| object.path.to_string()).collect()
}

//! One repository under two names counts once, however it is reached.

use seawall_core::{Code, Error};
use seawall_repo::Repository;

/// What is wrong where a repository is one of those before it, under another name: by what it says
/// that it is, since URLs and links can lead to one place in many ways.
#[must_use]
pub fn named_twice<'n>(
    before: impl IntoIterator<Item = (&'n str, &'n Repository)>,
    name: &str,
    repository: &Repository,
) -> Option<Error> {
    let id = repository.id();
    let (first, _) = before.into_iter().find(|(_, other)| other.id() == id)?;
    let what =
        format!("repositories {first} and {name} are one repository: both say that they are {id}");
    Some(
        Error::new(Code::ConfigInvalid, what).with_hint(
            "Leave one of the two names out: a second copy needs a repository of its own.",
        ),
    )
}

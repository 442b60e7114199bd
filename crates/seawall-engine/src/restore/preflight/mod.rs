//! Looks that are taken before a byte is written: at the places to write to, and at everything
//! that will be read.

mod directory;
mod inside;
mod space;
mod tablespaces;

pub(super) use directory::{
    being_discarded, go_on_or_discard, look as look_at_directory, prove_owner, prove_parent,
};
pub(super) use inside::prove_outside;
pub(super) use space::prove_space;
pub(super) use tablespaces::{look as look_at_tablespaces, remap};

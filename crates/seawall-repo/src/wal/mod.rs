//! WAL in the repository.

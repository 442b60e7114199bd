//! What is learned of a line before it is decided what of it stays.

mod facts;
mod house;
mod scale;

//! `COPY` and `ADD`: files of a tree become a new layer's top.
//!
//! Story: [`prepare`] finds what a [`Request`]'s sources match, hashes it and gives a [`Prepared`], whose digest stands in the
//! step's cache key; only if the cache has no such step, [`Prepared::write`] puts the files into an empty directory, as an
//! overlay mounted over the layers below would have them in its upper directory. The same copy into any chain has the
//! same digest unless names of users lead to other numbers there.

mod archive;
mod digest;
mod hash;
mod mode;
mod nodes;
mod owner;
mod pattern;
mod plan;
mod request;
mod tree;
mod upper;
mod write;

#[cfg(test)]
mod tests;

pub use hash::Hashes;
pub use plan::{Prepared, prepare};
pub use request::{CopyError, Exclude, Fetched, Form, Item, LINUX, Request, Summary, WINDOWS};
pub use tree::Tree;

//! Windows registry hives: the `regf` files in which Windows keeps its registry, and the *delta hives* in which a
//! container layer keeps its changes to one.
//!
//! ```
//! use silo_hive::{Hive, Key, Value};
//!
//! let mut old = Hive::default();
//! old.root.insert_subkey(Key::new("Software"))?;
//! let mut new = old.clone();
//! new.root.subkey_mut("SOFTWARE").unwrap().insert_value(Value::string("Greeting", "hello"))?;
//!
//! let delta = silo_hive::diff(&old, &new);
//! let bytes = delta.to_bytes()?;
//! let merged = silo_hive::merge(old, Hive::from_bytes(bytes)?);
//! assert_eq!(merged, new);
//! # Ok::<(), silo_hive::HiveError>(())
//! ```
//!
//! A hive is read whole into a tree ([`Hive`], [`Key`], [`Value`]) whose names and data are slices of the file's bytes.
//! Writing makes a whole file, the same for the same tree.
//!
//! The crate does no input and output but bytes, and knows nothing of containers, images or Wine. A hostile file gives an
//! error that names the offset and the record; each cell of a file is read at most once, so no file costs more than its
//! length.
//!
//! Format: M. Suhanov, "Windows registry file format specification" (msuhanov/regf); sections are named where a rule is
//! used.

#![forbid(unsafe_code)]

mod delta;
mod error;
mod laid;
mod links;
mod merge;
mod name;
mod overlay;
mod read;
mod reg;
mod replay;
mod squash;
mod tree;
mod upcase;
mod write;

pub use delta::diff;
pub use error::HiveError;
pub use links::{Linked, say_at, take_linked};
pub use merge::merge;
pub use name::Name;
pub use reg::{apply_reg, from_reg, to_reg};
pub use replay::recover;
pub use tree::{DEFAULT_SECURITY, Hive, Key, Layering, Semantics, Value, kind};
pub use upcase::upcase;

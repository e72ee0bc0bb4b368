//! What can be wrong with a hive, or with a tree that is to become one.

/// Why a hive cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HiveError {
    /// The bytes are no hive, or one of a kind that is not read.
    #[error("not a registry hive: {0}")]
    NotAHive(&'static str),
    /// Changes to it are still in its log files.
    #[error("the hive was not written to its end: {0}; its log files (.LOG1, .LOG2) have the rest")]
    Dirty(&'static str),
    /// A record breaks the format.
    #[error("broken hive: {record} at offset {offset:#x}: {problem}")]
    Broken {
        /// The record's signature or name.
        record: &'static str,
        /// Where its cell begins, counted from the start of the file.
        offset: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// A name cannot stand in a hive.
    #[error("the name {name:?} cannot be written: {problem}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Registry text that cannot be understood.
    #[error("line {line}: {problem}")]
    Text {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// A tree is none that the format can hold.
    #[error("the tree cannot be written as a hive: {0}")]
    Tree(&'static str),
}

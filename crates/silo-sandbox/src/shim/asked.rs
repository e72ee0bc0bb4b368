//! Questions of a daemon on their way: who asks, and who answers.

use std::os::fd::OwnedFd;

use silo_runtime::protocol::{Answer, Call};

/// Who has asked, and the number of the question.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    pub(super) connection: u64,
    pub(super) number: u64,
}

/// What becomes of a request.
pub(super) enum Asked {
    /// It was passed on.
    Later,
    /// It is answered.
    Now(Answer),
    /// It is the shim's own to answer.
    Own(Call, Option<OwnedFd>),
}

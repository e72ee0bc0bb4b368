//! Linux guest.
/// Axis 1, Linux.
pub struct LinuxGuest;

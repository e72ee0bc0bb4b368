//! Windows guest.
/// Axis 1, Windows.
pub struct WindowsGuest;

//! silo-sys

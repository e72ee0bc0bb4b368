//! silo-runtime

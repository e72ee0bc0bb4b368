//! silo-sandbox

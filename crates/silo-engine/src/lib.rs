//! silo-engine

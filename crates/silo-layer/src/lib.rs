//! silo-layer

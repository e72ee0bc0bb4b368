//! silo-network

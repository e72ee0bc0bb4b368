//! silo-api

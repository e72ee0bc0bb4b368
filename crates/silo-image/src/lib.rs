//! silo-image

//! Test utilities

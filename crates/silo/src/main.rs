//! silo
fn main() {}

//! A large hive, for figures on time and memory.

use silo_hive::{Hive, Key, Value};

/// So many values of 18 to 22 bytes, in keys of `each`; a file of 64 bytes a value.
pub(crate) fn hive(values: usize, each: usize) -> Hive {
    let mut hive = Hive::default();
    for k in 0..values / each {
        let mut key = Key::new(format!("Key {k:06}").as_str());
        for v in 0..each {
            let data = vec![k as u8; 18 + v % 5];
            key.insert_value(Value::new(format!("v{v:06}").as_str(), 3, data)).unwrap();
        }
        hive.root.insert_subkey(key).unwrap();
    }
    hive
}

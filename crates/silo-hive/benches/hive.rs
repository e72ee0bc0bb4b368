//! What a hive of 64 MB with a million values costs: reading, writing, and laying a delta of 20 KB over it.
//!
//! Promised: read 1.0 s, write 1.5 s, merge 0.1 s. `tests/memory.rs` holds the promise on memory.

#[path = "../tests/large/mod.rs"]
mod large;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use silo_hive::{Hive, Key, Value, diff, merge};

const VALUES: usize = 1_000_000;

/// Changes, additions and removals, spread over the hive, of about 20 KB as a delta hive.
fn edited(mut hive: Hive) -> Hive {
    let keys = hive.root.subkeys().len();
    for i in 0..50 {
        let name = hive.root.subkeys()[i * 7919 % keys].name.to_string();
        let key = hive.root.subkey_mut(&name).unwrap();
        key.insert_value(Value::string(format!("v00000{}", i % 3).as_str(), "changed")).unwrap();
        key.insert_value(Value::string(format!("v{i:06}x").as_str(), "new")).unwrap();
        key.remove_value(&format!("v{:06}", i + 3));
        if i % 5 == 0 {
            hive.root.insert_subkey(Key::new(format!("{name} new").as_str())).unwrap();
        }
    }
    hive
}

fn all(c: &mut Criterion) {
    let mut group = c.benchmark_group("hive of 64 MB");
    group.sample_size(10);
    for (shape, each) in [("100000 keys", 10), ("one key", VALUES)] {
        let tree = large::hive(VALUES, each);
        let file = tree.to_bytes().unwrap();
        let delta = diff(&tree, &edited(tree.clone())).to_bytes().unwrap();
        println!("{shape}: the hive has {} bytes, the delta {}", file.len(), delta.len());
        drop(tree);
        group.bench_function(format!("read, {shape}"), |b| {
            b.iter_batched(|| file.clone(), |file| Hive::from_bytes(file).unwrap(), BatchSize::PerIteration)
        });
        let tree = Hive::from_bytes(file.clone()).unwrap();
        group.bench_function(format!("write, {shape}"), |b| b.iter(|| tree.to_bytes().unwrap()));
        group.bench_function(format!("merge, {shape}"), |b| {
            b.iter_batched(
                || tree.clone(),
                |tree| merge(tree, Hive::from_bytes(delta.clone()).unwrap()),
                BatchSize::PerIteration,
            )
        });
        group.bench_function(format!("diff, {shape}"), |b| {
            b.iter(|| diff(black_box(&tree), black_box(&tree)))
        });
    }
    group.finish();
}

criterion_group!(benches, all);
criterion_main!(benches);

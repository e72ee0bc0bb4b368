//! Names of containers: which are allowed, and one for those who give none.

use rand::seq::IndexedRandom;

use crate::error::{EngineError, Result};

const QUALITIES: &[&str] = &[
    "able", "agile", "amber", "ample", "apt", "bold", "brave", "bright", "brisk", "calm", "candid", "clear",
    "clever", "cosy", "crisp", "deft", "eager", "early", "exact", "fair", "fine", "firm", "fleet", "fond",
    "frank", "free", "fresh", "gentle", "glad", "grand", "happy", "hardy", "honest", "humble", "jolly",
    "keen", "kind", "lively", "lucid", "merry", "mild", "modest", "neat", "nimble", "noble", "patient",
    "plain", "proud", "quick", "quiet", "rapid", "ready", "robust", "serene", "sharp", "silent", "sleek",
    "smart", "snug", "solid", "sound", "spry", "steady", "still", "sturdy", "sunny", "swift", "tidy", "true",
    "vivid", "warm", "wise", "witty", "young",
];

const PEOPLE: &[&str] = &[
    "abel",
    "ampere",
    "archimedes",
    "babbage",
    "banach",
    "bell",
    "bernoulli",
    "bohr",
    "boole",
    "borg",
    "cantor",
    "carnot",
    "cerf",
    "church",
    "codd",
    "curie",
    "dahl",
    "darwin",
    "dijkstra",
    "dirac",
    "engelbart",
    "erdos",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "floyd",
    "fourier",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goedel",
    "hamilton",
    "hamming",
    "hertz",
    "hilbert",
    "hoare",
    "hopper",
    "huygens",
    "jacquard",
    "kepler",
    "kernighan",
    "kilby",
    "knuth",
    "kovalevskaya",
    "lamarr",
    "lamport",
    "laplace",
    "leibniz",
    "liskov",
    "lovelace",
    "maxwell",
    "mccarthy",
    "meitner",
    "mendel",
    "naur",
    "newton",
    "noether",
    "nygaard",
    "ohm",
    "pascal",
    "perlman",
    "planck",
    "ritchie",
    "shannon",
    "tesla",
    "thompson",
    "turing",
    "volta",
    "wiles",
    "wirth",
    "zuse",
];

/// Tries before a number is added.
const TRIES: usize = 16;

/// A name that `free` agrees to.
pub(super) fn generate(free: impl Fn(&str) -> bool) -> String {
    let mut rng = rand::rng();
    let mut pick = || {
        let quality = QUALITIES.choose(&mut rng).unwrap_or(&"plain");
        let person = PEOPLE.choose(&mut rng).unwrap_or(&"turing");
        format!("{quality}_{person}")
    };
    for _ in 0..TRIES {
        let name = pick();
        if free(&name) {
            return name;
        }
    }
    let base = pick();
    (1u64..).map(|n| format!("{base}{n}")).find(|n| free(n)).unwrap_or(base)
}

/// Checks a name that a user gave; returns it without its leading slash.
pub(super) fn check(name: &str) -> Result<String> {
    let plain = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = plain.bytes();
    let valid = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && plain.len() > 1
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if valid {
        Ok(plain.to_owned())
    } else {
        Err(EngineError::invalid(format!(
            "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_free_and_allowed() {
        let name = generate(|n| n.ends_with('3'));
        assert!(name.ends_with('3'));
        assert_eq!(check(&name).unwrap(), name);
    }

    #[test]
    fn given_names() {
        assert_eq!(check("/web-1.a_b").unwrap(), "web-1.a_b");
        for bad in ["", "/", "a", "-a", "a b", "a/b", "ä1"] {
            assert!(check(bad).unwrap_err().message.starts_with("Invalid container name"), "{bad}");
        }
    }
}

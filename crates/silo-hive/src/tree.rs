//! A hive as a tree of keys with values.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::error::HiveError;
use crate::name::{KEY_NAME, Name, VALUE_NAME};
use crate::overlay::Named;

/// Types of values ("Key value", Data types). Any other number is legal too.
pub mod kind {
    /// `REG_NONE`.
    pub const NONE: u32 = 0;
    /// `REG_SZ`: UTF-16 text with its terminating zero.
    pub const SZ: u32 = 1;
    /// `REG_EXPAND_SZ`.
    pub const EXPAND_SZ: u32 = 2;
    /// `REG_BINARY`.
    pub const BINARY: u32 = 3;
    /// `REG_DWORD`, little-endian.
    pub const DWORD: u32 = 4;
    /// `REG_DWORD_BIG_ENDIAN`.
    pub const DWORD_BIG_ENDIAN: u32 = 5;
    /// `REG_LINK`: the target's path, without a terminating zero.
    pub const LINK: u32 = 6;
    /// `REG_MULTI_SZ`.
    pub const MULTI_SZ: u32 = 7;
    /// `REG_QWORD`.
    pub const QWORD: u32 = 11;
}

/// The descriptor that a key has which was given none: full control for the system and administrators, reading for
/// everyone. It is that of a hive made by Windows' own `offreg.dll`.
#[rustfmt::skip]
pub const DEFAULT_SECURITY: &[u8] = &[
    0x01, 0x00, 0x04, 0x80, 0x70, 0x00, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x14, 0x00, 0x00, 0x00, 0x02, 0x00, 0x5c, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x02, 0x14, 0x00,
    0x3f, 0x00, 0x0f, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x12, 0x00, 0x00, 0x00,
    0x00, 0x02, 0x18, 0x00, 0x3f, 0x00, 0x0f, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05,
    0x20, 0x00, 0x00, 0x00, 0x20, 0x02, 0x00, 0x00, 0x00, 0x02, 0x14, 0x00, 0x19, 0x00, 0x02, 0x00,
    0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x14, 0x00,
    0x19, 0x00, 0x02, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x0c, 0x00, 0x00, 0x00,
    0x01, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x20, 0x00, 0x00, 0x00, 0x20, 0x02, 0x00, 0x00,
    0x01, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x20, 0x00, 0x00, 0x00, 0x20, 0x02, 0x00, 0x00,
];

/// A hive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hive {
    /// The root key; its name is not part of any path.
    pub root: Key,
    /// Its keys' [`Layering`] counts: a delta hive.
    pub layered: bool,
}

impl Default for Hive {
    fn default() -> Self {
        Self { root: Key::new("ROOT"), layered: false }
    }
}

/// What a key of a delta hive does to the keys of its path in the hives below ("Layered keys").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Semantics {
    /// Both are one.
    #[default]
    Merge,
    /// There is no such key.
    Tombstone,
    /// This key's values and class stand for the lower ones; subkeys are merged.
    SupersedeLocal,
    /// This key and what is below it stand for the lower ones.
    SupersedeTree,
}

/// How a key of a delta hive lies over lower hives. All zero in a plain hive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layering {
    /// What becomes of the lower key.
    pub semantics: Semantics,
    /// The class is the lower key's.
    pub inherit_class: bool,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its name: 1 to 255 units, no backslash.
    pub name: Name,
    /// When it was last written: 100 ns since 1601 (`FILETIME`).
    pub written: u64,
    /// Class, UTF-16 little-endian; empty for none.
    pub class: Bytes,
    /// Self-relative `SECURITY_DESCRIPTOR` ([MS-DTYP] 2.4.6).
    pub security: Bytes,
    /// Its value `SymbolicLinkValue` names the key that it stands for.
    pub is_link: bool,
    /// What it does to lower hives.
    pub layering: Layering,
    /// By name.
    values: Vec<Value>,
    /// By name.
    subkeys: Vec<Key>,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Its name: up to 16383 units; empty for the default value.
    pub name: Name,
    /// One of [`kind`], or any other number.
    pub kind: u32,
    /// Its data as a hive holds them.
    pub data: Bytes,
    /// In a delta hive: there is no such value.
    pub is_tombstone: bool,
}

impl Value {
    /// A value of any type.
    pub fn new(name: impl Into<Name>, kind: u32, data: impl Into<Bytes>) -> Self {
        Self { name: name.into(), kind, data: data.into(), is_tombstone: false }
    }

    /// A `REG_SZ`.
    pub fn string(name: impl Into<Name>, text: &str) -> Self {
        let data: Vec<u8> = text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        Self::new(name, kind::SZ, data)
    }

    /// A `REG_DWORD`.
    pub fn dword(name: impl Into<Name>, number: u32) -> Self {
        Self::new(name, kind::DWORD, number.to_le_bytes().to_vec())
    }

    /// In a delta hive: takes the lower value of this name away.
    pub fn tombstone(name: impl Into<Name>) -> Self {
        Self { is_tombstone: true, ..Self::new(name, kind::NONE, Bytes::new()) }
    }
}

impl Key {
    /// A key without anything.
    pub fn new(name: impl Into<Name>) -> Self {
        Self {
            name: name.into(),
            written: 0,
            class: Bytes::new(),
            security: Bytes::from_static(DEFAULT_SECURITY),
            is_link: false,
            layering: Layering::default(),
            values: Vec::new(),
            subkeys: Vec::new(),
        }
    }

    /// All but values and subkeys.
    pub(crate) fn bare(&self) -> Self {
        Self {
            name: self.name.clone(),
            class: self.class.clone(),
            security: self.security.clone(),
            values: Vec::new(),
            subkeys: Vec::new(),
            ..*self
        }
    }

    /// The values in the order of their names.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The subkeys in the order of their names.
    pub fn subkeys(&self) -> &[Key] {
        &self.subkeys
    }

    /// The subkeys, to change them. Their names must stay of the same order.
    pub fn subkeys_mut(&mut self) -> &mut [Key] {
        &mut self.subkeys
    }

    /// The value of a name, in any case.
    pub fn value(&self, name: &str) -> Option<&Value> {
        let at = self.values.binary_search_by(|v| v.name.order_text(name)).ok()?;
        self.values.get(at)
    }

    /// The subkey of a name, in any case.
    pub fn subkey(&self, name: &str) -> Option<&Key> {
        let at = self.subkeys.binary_search_by(|k| k.name.order_text(name)).ok()?;
        self.subkeys.get(at)
    }

    /// As [`Key::subkey`], to change it. Its name must stay of the same order.
    pub fn subkey_mut(&mut self, name: &str) -> Option<&mut Key> {
        let at = self.subkeys.binary_search_by(|k| k.name.order_text(name)).ok()?;
        self.subkeys.get_mut(at)
    }

    /// The subkey of a name, made if there is none.
    ///
    /// # Errors
    /// [`HiveError::Name`] for a name that no hive can hold.
    pub fn subkey_or_new(&mut self, name: Name) -> Result<&mut Key, HiveError> {
        let at = match self.subkeys.binary_search_by(|k| k.name.order(&name)) {
            Ok(at) => at,
            Err(at) => {
                check_key_name(&name)?;
                self.subkeys.insert(at, Key::new(name));
                at
            }
        };
        Ok(&mut self.subkeys[at])
    }

    /// The key at a path of names with backslashes between them; links are not followed.
    pub fn at_path(&self, path: &str) -> Option<&Key> {
        path.split('\\').filter(|n| !n.is_empty()).try_fold(self, |key, name| key.subkey(name))
    }

    /// Sets a value; returns the one that it stands for.
    ///
    /// # Errors
    /// [`HiveError::Name`] for a name that no hive can hold.
    pub fn insert_value(&mut self, value: Value) -> Result<Option<Value>, HiveError> {
        value.name.check(0, VALUE_NAME)?;
        Ok(match self.values.binary_search_by(|v| v.name.order(&value.name)) {
            Ok(at) => Some(std::mem::replace(&mut self.values[at], value)),
            Err(at) => {
                self.values.insert(at, value);
                None
            }
        })
    }

    /// Takes a value away.
    pub fn remove_value(&mut self, name: &str) -> Option<Value> {
        let at = self.values.binary_search_by(|v| v.name.order_text(name)).ok()?;
        Some(self.values.remove(at))
    }

    /// Puts a key below this one; returns the one that it stands for.
    ///
    /// # Errors
    /// [`HiveError::Name`] for a name that no hive can hold.
    pub fn insert_subkey(&mut self, key: Key) -> Result<Option<Key>, HiveError> {
        check_key_name(&key.name)?;
        Ok(match self.subkeys.binary_search_by(|k| k.name.order(&key.name)) {
            Ok(at) => Some(std::mem::replace(&mut self.subkeys[at], key)),
            Err(at) => {
                self.subkeys.insert(at, key);
                None
            }
        })
    }

    /// Takes a key away, with all below it.
    pub fn remove_subkey(&mut self, name: &str) -> Option<Key> {
        let at = self.subkeys.binary_search_by(|k| k.name.order_text(name)).ok()?;
        Some(self.subkeys.remove(at))
    }

    /// Number of keys from this one down, itself among them.
    pub fn count(&self) -> usize {
        1 + self.subkeys.iter().map(Key::count).sum::<usize>()
    }

    /// Takes over lists that may be in any order; `Err` is a name that stands in one twice.
    pub(crate) fn set_contents(&mut self, mut values: Vec<Value>, mut subkeys: Vec<Key>) -> Result<(), Name> {
        if !values.is_sorted_by(|a, b| a.name.order(&b.name) == Ordering::Less) {
            values.sort_by(|a, b| a.name.order(&b.name));
            if let Some(pair) = values.windows(2).find(|p| p[0].name.order(&p[1].name).is_eq()) {
                return Err(pair[0].name.clone());
            }
        }
        if !subkeys.is_sorted_by(|a, b| a.name.order(&b.name) == Ordering::Less) {
            subkeys.sort_by(|a, b| a.name.order(&b.name));
            if let Some(pair) = subkeys.windows(2).find(|p| p[0].name.order(&p[1].name).is_eq()) {
                return Err(pair[0].name.clone());
            }
        }
        (self.values, self.subkeys) = (values, subkeys);
        Ok(())
    }

    /// The lists, to be given back in order by the caller.
    pub(crate) fn lists_mut(&mut self) -> (&mut Vec<Value>, &mut Vec<Key>) {
        (&mut self.values, &mut self.subkeys)
    }
}

fn check_key_name(name: &Name) -> Result<(), HiveError> {
    name.check(1, KEY_NAME)?;
    match name.units().any(|u| u == u16::from(b'\\')) {
        true => Err(name.refused("it has a backslash")),
        false => Ok(()),
    }
}

impl Named for Key {
    fn name(&self) -> &Name {
        &self.name
    }

    fn blank() -> Self {
        Self::new("")
    }
}

impl Named for Value {
    fn name(&self) -> &Name {
        &self.name
    }

    fn blank() -> Self {
        Self::new("", kind::NONE, Bytes::new())
    }
}

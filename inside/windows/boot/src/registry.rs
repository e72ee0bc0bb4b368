//! Volatile registry keys and their values, by ntdll's calls.

use crate::text::{wide, Text};
use crate::windows::*;

/// An open key.
pub struct Key(Handle);

/// `text` as ntdll wants names: without a final zero, length in bytes.
pub fn name(text: &Text) -> UnicodeString {
    let length = (text.len().saturating_sub(1) * 2) as u16;
    UnicodeString { length, maximum: length, buffer: text.as_ptr() }
}

/// Attributes of the object called `name`.
pub fn attributes(name: &UnicodeString, root: Handle, attributes: u32) -> ObjectAttributes {
    ObjectAttributes {
        length: core::mem::size_of::<ObjectAttributes>() as u32,
        root,
        name,
        attributes,
        security: core::ptr::null(),
        quality: core::ptr::null(),
    }
}

impl Key {
    /// Opens or makes a key by its native path, with what is missing above it. Keys made here go with the session.
    pub fn create(path: &str) -> Option<Key> {
        let mut end = path.len();
        loop {
            if let Some(key) = Key::create_one(&path[..end], core::ptr::null_mut()) {
                if end == path.len() {
                    return Some(key);
                }
                return key.create_below(&path[end + 1..]);
            }
            end = path[..end].rfind('\\').filter(|at| *at > 0)?;
        }
    }

    /// Opens or makes a key below `HKEY_CURRENT_USER`.
    pub fn of_user(path: &str) -> Option<Key> {
        let mut user = core::ptr::null_mut();
        // SAFETY: the handle outlives the call.
        if unsafe { RtlOpenCurrentUser(ALL_ACCESS_KEY, &mut user) } < 0 {
            return None;
        }
        Key(user).create_below(path)
    }

    /// Removes a key without others below it by its native path; whether it was there.
    pub fn remove(path: &str) -> bool {
        let path = wide(path);
        let path = name(&path);
        let attributes = attributes(&path, core::ptr::null_mut(), CASE_INSENSITIVE);
        let mut key = core::ptr::null_mut();
        // SAFETY: all structures outlive the calls.
        unsafe { NtOpenKey(&mut key, ALL_ACCESS_KEY, &attributes) >= 0 && NtDeleteKey(Key(key).0) >= 0 }
    }

    fn create_below(self, path: &str) -> Option<Key> {
        let mut key = self;
        for part in path.split('\\') {
            key = Key::create_one(part, key.0)?;
        }
        Some(key)
    }

    fn create_one(path: &str, root: Handle) -> Option<Key> {
        let path = wide(path);
        let path = name(&path);
        let attributes = attributes(&path, root, CASE_INSENSITIVE);
        let mut key = core::ptr::null_mut();
        // SAFETY: all structures outlive the call.
        let status = unsafe {
            NtCreateKey(
                &mut key,
                ALL_ACCESS_KEY,
                &attributes,
                0,
                core::ptr::null(),
                OPTION_VOLATILE,
                core::ptr::null_mut(),
            )
        };
        if status >= 0 {
            Some(Key(key))
        } else {
            None
        }
    }

    /// Sets a string value; `text` without final zero.
    pub fn set_text(&self, value: &str, text: &[u16]) {
        let mut data = crate::text::Buffer::new();
        for unit in text {
            data.extend(&unit.to_le_bytes());
        }
        data.extend(&[0, 0]);
        self.set(value, REG_SZ, &data);
    }

    /// Sets a string value to ASCII text.
    pub fn set_ascii(&self, value: &str, text: &str) {
        let text = wide(text);
        self.set_text(value, &text[..text.len() - 1]);
    }

    /// Sets a number.
    pub fn set_number(&self, value: &str, number: u32) {
        self.set(value, REG_DWORD, &number.to_le_bytes());
    }

    fn set(&self, value: &str, kind: u32, data: &[u8]) {
        let value = wide(value);
        let value = name(&value);
        // SAFETY: name and data outlive the call. A value that cannot be set is left as it is: nothing depends on
        // one alone.
        unsafe { NtSetValueKey(self.0, &value, 0, kind, data.as_ptr(), data.len() as u32) };
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: ours, closed once.
        unsafe { CloseHandle(self.0) };
    }
}

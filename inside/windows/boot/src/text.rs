//! UTF-16 text and bytes on the process heap: what a program without a runtime library has instead of `String`.

use core::ops::Deref;

use crate::windows::*;

/// Grows on the process heap; the process ends if there is no memory.
pub struct Buffer<T: Copy> {
    start: *mut T,
    length: usize,
    capacity: usize,
}

impl<T: Copy> Buffer<T> {
    pub fn new() -> Self {
        Buffer { start: core::ptr::null_mut(), length: 0, capacity: 0 }
    }

    pub fn push(&mut self, item: T) {
        if self.length == self.capacity {
            self.grow((self.capacity * 2).max(128));
        }
        // SAFETY: `length < capacity` elements are allocated.
        unsafe { self.start.add(self.length).write(item) };
        self.length += 1;
    }

    pub fn extend(&mut self, items: &[T]) {
        for item in items {
            self.push(*item);
        }
    }

    fn grow(&mut self, capacity: usize) {
        // SAFETY: a fresh block of the heap; the old one holds `length` elements.
        unsafe {
            let fresh = HeapAlloc(GetProcessHeap(), 0, capacity * core::mem::size_of::<T>()) as *mut T;
            if fresh.is_null() {
                ExitProcess(ERROR_OUT_OF_MEMORY);
            }
            if !self.start.is_null() {
                core::ptr::copy_nonoverlapping(self.start, fresh, self.length);
                HeapFree(GetProcessHeap(), 0, self.start as *mut u8);
            }
            self.start = fresh;
        }
        self.capacity = capacity;
    }

    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.start
    }
}

const ERROR_OUT_OF_MEMORY: u32 = 14;

impl<T: Copy> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        if self.start.is_null() {
            return &[];
        }
        // SAFETY: `length` elements are initialised.
        unsafe { core::slice::from_raw_parts(self.start, self.length) }
    }
}

impl<T: Copy> Drop for Buffer<T> {
    fn drop(&mut self) {
        if !self.start.is_null() {
            // SAFETY: from HeapAlloc, freed once.
            unsafe { HeapFree(GetProcessHeap(), 0, self.start as *mut u8) };
        }
    }
}

/// UTF-16 text.
pub type Text = Buffer<u16>;

/// ASCII as UTF-16 with a final zero.
pub fn wide(ascii: &str) -> Text {
    let mut text = Text::new();
    append(&mut text, ascii);
    text.push(0);
    text
}

/// Appends ASCII.
pub fn append(text: &mut Text, ascii: &str) {
    for byte in ascii.bytes() {
        text.push(u16::from(byte));
    }
}

/// The part of zero-terminated text before the zero.
///
/// # Safety
/// `start` must point to zero-terminated text that outlives the result.
pub unsafe fn terminated<'a>(start: *const u16) -> &'a [u16] {
    let mut length = 0;
    while *start.add(length) != 0 {
        length += 1;
    }
    core::slice::from_raw_parts(start, length)
}

/// One UTF-16 unit as Windows folds environment names in practice: ASCII letters upwards.
pub fn upper(unit: u16) -> u16 {
    if (0x61..=0x7a).contains(&unit) {
        unit - 0x20
    } else {
        unit
    }
}

/// Whether two texts are the same but for the case of ASCII letters.
pub fn same(a: &[u16], b: &[u16]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| upper(*a) == upper(*b))
}

/// Whether `text` is the ASCII `other`, whatever the case.
pub fn is(text: &[u16], other: &str) -> bool {
    text.len() == other.len() && text.iter().zip(other.bytes()).all(|(a, b)| upper(*a) == upper(u16::from(b)))
}

/// A whole file, named by Windows path without final zero; `None` if it cannot be read.
pub fn read_file(path: &str) -> Option<Buffer<u8>> {
    let name = wide(path);
    // SAFETY: the name is terminated; the buffer is as long as said.
    unsafe {
        let file = CreateFileW(
            name.as_ptr(),
            GENERIC_READ,
            SHARE_ALL,
            core::ptr::null(),
            OPEN_EXISTING,
            0,
            core::ptr::null_mut(),
        );
        if file == INVALID_HANDLE {
            return None;
        }
        let mut content = Buffer::new();
        let mut chunk = [0u8; 4096];
        let mut read = 0;
        while ReadFile(file, chunk.as_mut_ptr(), chunk.len() as u32, &mut read, core::ptr::null()) != 0 && read > 0 {
            content.extend(&chunk[..read as usize]);
        }
        CloseHandle(file);
        Some(content)
    }
}

/// Writes a whole file, named by Windows path without final zero.
pub fn write_file(path: &str, content: &[u8]) -> bool {
    let name = wide(path);
    // SAFETY: the name is terminated; the content is as long as said.
    unsafe {
        let file = CreateFileW(
            name.as_ptr(),
            GENERIC_WRITE,
            SHARE_ALL,
            core::ptr::null(),
            CREATE_ALWAYS,
            0,
            core::ptr::null_mut(),
        );
        if file == INVALID_HANDLE {
            return false;
        }
        let mut written = 0;
        let ok = WriteFile(file, content.as_ptr(), content.len() as u32, &mut written, core::ptr::null());
        CloseHandle(file);
        ok != 0 && written as usize == content.len()
    }
}

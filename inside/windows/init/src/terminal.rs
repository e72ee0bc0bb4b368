//! The terminal on standard input: raw from the beginning, and its size.
//!
//! Wine's console host makes it raw when a program first reads. What is typed before that would be echoed by Linux and
//! get its carriage returns turned into line feeds, which a Windows console shows as `^J`.

use std::mem::MaybeUninit;

/// Columns and rows of the terminal on standard input, if that is one.
pub(crate) fn size() -> Option<(u16, u16)> {
    let mut size = MaybeUninit::<libc::winsize>::uninit();
    // SAFETY: the structure is filled if the call succeeds, which it does on terminals only.
    unsafe {
        if libc::ioctl(libc::STDIN_FILENO, libc::TIOCGWINSZ, size.as_mut_ptr()) != 0 {
            return None;
        }
        let size = size.assume_init();
        Some((size.ws_col, size.ws_row))
    }
}

/// Makes standard input raw if it is a terminal; output processing stays as it is.
pub(crate) fn make_raw() {
    let mut settings = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the structure is filled if the call succeeds, which it does on terminals only.
    unsafe {
        if libc::tcgetattr(libc::STDIN_FILENO, settings.as_mut_ptr()) != 0 {
            return;
        }
        let mut settings = settings.assume_init();
        settings.c_iflag &= !(libc::ICRNL | libc::INLCR | libc::IGNCR | libc::ISTRIP | libc::IXON);
        settings.c_lflag &= !(libc::ECHO | libc::ECHONL | libc::ICANON | libc::ISIG | libc::IEXTEN);
        // Not possible: then it is as the console host finds it.
        libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &settings);
    }
}

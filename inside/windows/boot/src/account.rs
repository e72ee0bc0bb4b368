//! Who the program is: an administrator has this process's token, a user one of a standard user, and each the variables of
//! its own profile.

use crate::registry::attributes;
use crate::text::{append, is, wide, Text};
use crate::windows::*;

/// The account that is no administrator.
const USER: &str = "ContainerUser";
/// Where Wine's ntdll leaves the account's name: ours hides it, the packaged one does not.
const NAMES: [&str; 2] = ["=USERNAME", "WINEUSERNAME"];

const PRIMARY: u32 = 1;
const ALL_ACCESS_TOKEN: u32 = 0x000f_01ff;
/// Enabled, by default, and not to be disabled.
const GROUP: u32 = 7;
/// It stands for a log-on session.
const GROUP_LOGON: u32 = 0xc000_0000;
const PRIVILEGE_ENABLED: u32 = 3;

/// A security identifier of authority `authority`: revision, number of parts, authority, parts.
#[derive(Clone, Copy)]
#[repr(C)]
struct Sid {
    revision: u8,
    count: u8,
    authority: [u8; 6],
    parts: [u32; 5],
}

const fn sid(authority: u8, count: u8, parts: [u32; 5]) -> Sid {
    Sid { revision: 1, count, authority: [0, 0, 0, 0, 0, authority], parts }
}

/// None (of whatever machine this is), Everyone, LOCAL, INTERACTIVE, Authenticated Users, BUILTIN\Users, the log-on session;
/// the first is the primary group. BUILTIN\Administrators is not among them.
static GROUPS: [(Sid, u32); COUNT] = [
    (sid(5, 5, [21, 0, 0, 0, NONE]), GROUP),
    (sid(1, 1, [0; 5]), GROUP),
    (sid(2, 1, [0; 5]), GROUP),
    (sid(5, 1, [4, 0, 0, 0, 0]), GROUP),
    (sid(5, 1, [11, 0, 0, 0, 0]), GROUP),
    (sid(5, 2, [32, 545, 0, 0, 0]), GROUP),
    (sid(5, 3, [5, 0, 0, 0, 0]), GROUP | GROUP_LOGON),
];
const COUNT: usize = 7;
/// Of the SID of an account of the machine's: the part that is its own.
const OWN_PART: usize = 4;
/// The group None.
const NONE: u32 = 513;
/// SeChangeNotifyPrivilege is enabled, SeIncreaseWorkingSetPrivilege can be.
const PRIVILEGES: [(u32, u32); 2] = [(23, PRIVILEGE_ENABLED), (33, 0)];

#[repr(C)]
struct SidAndAttributes {
    sid: *const Sid,
    attributes: u32,
}

#[repr(C)]
struct TokenGroups {
    count: u32,
    groups: [SidAndAttributes; COUNT],
}

#[repr(C)]
struct TokenPrivileges {
    count: u32,
    /// Identifier's low and high half, attributes.
    privileges: [[u32; 3]; PRIVILEGES.len()],
}

/// An account of the container's.
pub struct Account(Text);

impl Account {
    /// The one that this process was started for.
    pub fn own() -> Account {
        let mut name = [0u16; 256];
        for variable in NAMES.iter() {
            // SAFETY: the variable's name is terminated, the buffer as long as said.
            let length =
                unsafe { GetEnvironmentVariableW(wide(variable).as_ptr(), name.as_mut_ptr(), name.len() as u32) };
            if length > 0 && (length as usize) < name.len() {
                let mut text = Text::new();
                text.extend(&name[..length as usize]);
                return Account(text);
            }
        }
        Account(Text::new())
    }

    /// `before`, its name, `after`.
    fn profile(&self, before: &str, after: &str) -> Text {
        let mut path = Text::new();
        append(&mut path, before);
        path.extend(&self.0);
        append(&mut path, after);
        path
    }

    /// Calls `take` with each variable that is the account's, without final zero.
    pub fn variables(&self, mut take: impl FnMut(&str, &[u16])) {
        take("USERNAME", &self.0);
        take("HOMEPATH", &self.profile(r"\Users\", ""));
        take("USERPROFILE", &self.profile(r"C:\Users\", ""));
        take("APPDATA", &self.profile(r"C:\Users\", r"\AppData\Roaming"));
        take("LOCALAPPDATA", &self.profile(r"C:\Users\", r"\AppData\Local"));
        for name in ["TEMP", "TMP"].iter() {
            take(name, &self.profile(r"C:\Users\", r"\AppData\Local\Temp"));
        }
    }

    /// The token for its programs: none if they are to have this process's; an error is a status of ntdll's.
    pub fn token(&self) -> Result<Option<Handle>, i32> {
        if !is(&self.0, USER) {
            return Ok(None);
        }
        let user = wines_user()?;
        let mut none = user;
        none.parts[OWN_PART] = NONE;
        // SAFETY: numbers and pointers, for which zero is a value.
        let mut groups: TokenGroups = unsafe { core::mem::zeroed() };
        groups.count = COUNT as u32;
        for (group, (sid, attributes)) in groups.groups.iter_mut().zip(GROUPS.iter()) {
            *group = SidAndAttributes { sid, attributes: *attributes };
        }
        groups.groups[0].sid = &none;
        let mut privileges = TokenPrivileges { count: PRIVILEGES.len() as u32, privileges: [[0; 3]; PRIVILEGES.len()] };
        for (privilege, (number, attributes)) in privileges.privileges.iter_mut().zip(PRIVILEGES.iter()) {
            *privilege = [*number, 0, *attributes];
        }
        let user = SidAndAttributes { sid: &user, attributes: 0 };
        let primary_group: *const Sid = &none;
        let no_name = UnicodeString { length: 0, maximum: 0, buffer: core::ptr::null() };
        let mut attributes = attributes(&no_name, core::ptr::null_mut(), 0);
        attributes.name = core::ptr::null();
        let (identifier, never) = ([0u32; 2], i64::MAX);
        let mut token = core::ptr::null_mut();
        // SAFETY: all structures outlive the call and are laid out as ntdll wants them; the last two may be missing.
        let status = unsafe {
            NtCreateToken(
                &mut token,
                ALL_ACCESS_TOKEN,
                &attributes,
                PRIMARY,
                identifier.as_ptr(),
                &never,
                &user as *const SidAndAttributes as *const _,
                &groups as *const TokenGroups as *const _,
                &privileges as *const TokenPrivileges as *const _,
                core::ptr::null(),
                &primary_group as *const *const Sid as *const _,
                core::ptr::null(),
                core::ptr::null(),
            )
        };
        if status < 0 {
            return Err(status);
        }
        Ok(Some(token))
    }
}

/// The one user that Wine knows, to whom `HKEY_CURRENT_USER` belongs: this process's.
fn wines_user() -> Result<Sid, i32> {
    /// A pointer to a SID, its attributes, and room for it.
    #[repr(C)]
    struct TokenUser {
        user: SidAndAttributes,
        room: [u32; 17],
    }
    // SAFETY: numbers and pointers, for which zero is a value; the buffer is as long as said, and the pointer leads into it.
    unsafe {
        let mut token = core::ptr::null_mut();
        let mut status = NtOpenProcessToken(CURRENT_PROCESS, TOKEN_QUERY, &mut token);
        if status < 0 {
            return Err(status);
        }
        let (mut buffer, mut length): (TokenUser, u32) = (core::mem::zeroed(), 0);
        let size = core::mem::size_of::<TokenUser>() as u32;
        status = NtQueryInformationToken(token, TOKEN_USER, &mut buffer as *mut _ as *mut _, size, &mut length);
        CloseHandle(token);
        if status < 0 {
            return Err(status);
        }
        Ok(*buffer.user.sid)
    }
}

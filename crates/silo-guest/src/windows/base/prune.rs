//! Which of Wine's files a base keeps: named roots, and everything that these load, computed from the files.
//!
//! The lists hold only what nothing names in a header: programs, services and drivers, libraries that programs
//! load by name at run time. What is missing from them shows as a failing program; what a kept file imports can
//! not be missing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Programs of the console family.
const PROGRAMS: &[&str] = &[
    "arp.exe",
    "attrib.exe",
    "cacls.exe",
    "certutil.exe",
    "chcp.com",
    "cmd.exe",
    "conhost.exe",
    "dllhost.exe",
    "expand.exe",
    "fc.exe",
    "find.exe",
    "findstr.exe",
    "fsutil.exe",
    "hostname.exe",
    "icacls.exe",
    "ipconfig.exe",
    "klist.exe",
    "net.exe",
    "netsh.exe",
    "netstat.exe",
    "ping.exe",
    "reg.exe",
    "regini.exe",
    "regsvr32.exe",
    "robocopy.exe",
    "rundll32.exe",
    "sc.exe",
    "schtasks.exe",
    "secedit.exe",
    "setx.exe",
    "shutdown.exe",
    "sort.exe",
    "start.exe",
    "subst.exe",
    "systeminfo.exe",
    "taskkill.exe",
    "tasklist.exe",
    "wevtutil.exe",
    "where.exe",
    "whoami.exe",
    "xcopy.exe",
];

/// Services and drivers, with the hosts that run them.
const SERVICES: &[&str] = &[
    "services.exe",
    "svchost.exe",
    "winedevice.exe",
    "ntoskrnl.exe",
    "hal.dll",
    "mountmgr.sys",
    "nsiproxy.sys",
    "ndis.sys",
    "netio.sys",
    "rpcss.exe",
    "plugplay.exe",
    "wevtsvc.dll",
    "schedsvc.dll",
    "srvsvc.dll",
];

/// Libraries that programs import or load by name.
const LIBRARIES: &[&str] = &[
    "advapi32.dll",
    "apisetschema.dll",
    // By which the others enter themselves into the registry during set-up.
    "atl100.dll",
    "authz.dll",
    "bcrypt.dll",
    "bcryptprimitives.dll",
    "cabinet.dll",
    "cfgmgr32.dll",
    "combase.dll",
    "concrt140.dll",
    "credui.dll",
    "crypt32.dll",
    "cryptsp.dll",
    "cryptnet.dll",
    "dbghelp.dll",
    "dhcpcsvc.dll",
    "dhcpcsvc6.dll",
    "dnsapi.dll",
    "fltlib.dll",
    "fwpuclnt.dll",
    "httpapi.dll",
    "imagehlp.dll",
    "iphlpapi.dll",
    "kernel32.dll",
    "kernelbase.dll",
    "ktmw32.dll",
    "mpr.dll",
    "mscoree.dll",
    "msvcp140.dll",
    "msvcp140_1.dll",
    "msvcp140_2.dll",
    "msvcp140_atomic_wait.dll",
    "msvcp140_codecvt_ids.dll",
    "msvcp_win.dll",
    "msvcrt.dll",
    "msvcr120.dll",
    "msvcp120.dll",
    "mswsock.dll",
    "ncrypt.dll",
    "netapi32.dll",
    "netutils.dll",
    "normaliz.dll",
    "nsi.dll",
    "ntdll.dll",
    "ntdsapi.dll",
    "ole32.dll",
    "oleaut32.dll",
    "pdh.dll",
    "powrprof.dll",
    "profapi.dll",
    "propsys.dll",
    "psapi.dll",
    "rpcrt4.dll",
    "rsaenh.dll",
    "dssenh.dll",
    "rstrtmgr.dll",
    "schannel.dll",
    "sechost.dll",
    "secur32.dll",
    "setupapi.dll",
    "shcore.dll",
    "shell32.dll",
    "shlwapi.dll",
    "srvcli.dll",
    "sspicli.dll",
    "tdh.dll",
    "ucrtbase.dll",
    "user32.dll",
    "userenv.dll",
    "uxtheme.dll",
    "vcomp140.dll",
    "vcruntime140.dll",
    "vcruntime140_1.dll",
    "version.dll",
    "wbemprox.dll",
    "wer.dll",
    "wevtapi.dll",
    "winhttp.dll",
    "wininet.dll",
    "winmm.dll",
    "winsta.dll",
    "wintrust.dll",
    "wldap32.dll",
    "ws2_32.dll",
    "wsock32.dll",
    "wtsapi32.dll",
    "xmllite.dll",
    "imm32.dll",
    "msacm32.dll",
    "cryptui.dll",
    "virtdisk.dll",
    "websocket.dll",
];

/// What the making of the registry needs.
const SETUP: &[&str] = &["wineboot.exe", "setupapi.dll", "rundll32.exe"];

/// Libraries that console programs reach only through delayed imports or dialogues, and the desktop behind them.
const NOT_ON_A_CONSOLE: &[&str] =
    &["mshtml.dll", "ieframe.dll", "winex11.drv", "winewayland.drv", "explorerframe.dll"];

/// Wine's Linux halves that the console family keeps, without `.so`.
const UNIX_HALVES: &[&str] = &[
    "bcrypt", "crypt32", "dnsapi", "mountmgr", "msv1_0", "netapi32", "nsiproxy", "ntdll", "secur32",
    "win32u", "ws2_32",
];

/// Libraries that these open by name: found in the strings of the kept halves, each tested.
/// libfreetype without libfontconfig makes every process start a desktop that starts a desktop.
const OPENED_LIBRARIES: &[&str] =
    &["libgnutls.so.30", "libfreetype.so.6", "libfontconfig.so.1", "libgcc_s.so.1"];

/// The Linux halves and libraries that are the roots of the Linux side.
pub(super) fn linux_roots() -> (Vec<String>, &'static [&'static str]) {
    (UNIX_HALVES.iter().map(|name| format!("{name}.so")).collect(), OPENED_LIBRARIES)
}

/// A needed file that no package brings.
#[derive(Debug, thiserror::Error)]
#[error("{needed}, which {by} needs, is in none of the packages")]
pub struct MissingFile {
    needed: String,
    by: String,
}

/// The console family's files: its roots and everything they load, out of `all` (lower-case name → what it needs).
pub(super) fn console_closure(all: &BTreeMap<String, Vec<String>>) -> Result<BTreeSet<String>, MissingFile> {
    let roots = PROGRAMS.iter().chain(SERVICES).chain(LIBRARIES).chain(SETUP);
    closure(roots.map(|name| name.to_string()), all, |name| {
        is_redirected(name) || NOT_ON_A_CONSOLE.contains(&name)
    })
}

/// Names that the API set schema redirects: contracts, not files.
fn is_redirected(name: &str) -> bool {
    name.starts_with("api-ms-") || name.starts_with("ext-ms-")
}

/// Closes `roots` over what they need, out of `all` (name → what it needs), leaving out what `skip` says.
pub(super) fn closure(
    roots: impl IntoIterator<Item = String>,
    all: &BTreeMap<String, Vec<String>>,
    skip: impl Fn(&str) -> bool,
) -> Result<BTreeSet<String>, MissingFile> {
    let mut keep = BTreeSet::new();
    let mut queue: VecDeque<(String, String)> =
        roots.into_iter().map(|name| (name, "the list of roots".to_owned())).collect();
    while let Some((name, by)) = queue.pop_front() {
        if keep.contains(&name) || skip(&name) {
            continue;
        }
        let needs = all.get(&name).ok_or_else(|| MissingFile { needed: name.clone(), by })?;
        queue.extend(needs.iter().map(|needed| (needed.clone(), name.clone())));
        keep.insert(name);
    }
    Ok(keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_closed_over_what_they_need() {
        let all = BTreeMap::from([
            ("a".to_owned(), vec!["b".to_owned()]),
            ("b".to_owned(), vec!["a".to_owned()]),
            ("c".to_owned(), vec![]),
        ]);
        let kept = closure(["a".to_owned()], &all, |_| false).unwrap();
        assert_eq!(kept.into_iter().collect::<Vec<_>>(), ["a", "b"]);
        let missing = closure(["d".to_owned()], &all, |_| false).unwrap_err();
        assert_eq!(missing.to_string(), "d, which the list of roots needs, is in none of the packages");
    }
}

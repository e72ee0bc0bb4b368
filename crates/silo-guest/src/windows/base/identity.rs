//! What makes the registry that Wine set up the registry of Windows Server 2022.

use super::family::Family;
use super::registry::Registry;

/// `CurrentBuildNumber`.
const BUILD: u32 = 20348;
/// Update build revision: the fourth part of `os.version`.
const REVISION: u32 = 4294;

/// The image config's `os.version`.
pub(in crate::windows) fn os_version() -> String {
    format!("10.0.{BUILD}.{REVISION}")
}

const CURRENT_VERSION: &str = r"Software\Microsoft\Windows NT\CurrentVersion";
const SERVICES: &str = r"System\ControlSet001\Services";

/// Drivers for devices that a container does not have. Each would cost a process at start.
const NO_SUCH_DEVICES: &[&str] =
    &["winebus", "winehid", "wineusb", "winebth", "winexinput", "wineusb", "mouhid", "input"];

/// Services that a container does not need at its start; each is a process of five megabytes or more.
const ON_DEMAND: &[&str] =
    &["NDIS", "Eventlog", "PlugPlay", "RpcSs", "Schedule", "LanmanServer", "Spooler", "TermService"];

/// Changes `system.reg`. `exists` tells whether a program or library of that file name is in the base.
pub(super) fn apply(system: &mut Registry, family: Family, exists: &dyn Fn(&str) -> bool) {
    version(system, family);
    processes(system);
    services(system, exists);
    display(system);
    time_zone(system);
}

/// Each program looks for its time zone by trying the list from its beginning: UTC, which every container has, lay
/// behind fifty others, and twice 50 ms of a container's start went there. Its copy is found first; its name is how the
/// zone calls itself.
fn time_zone(system: &mut Registry) {
    const ZONES: &str = r"Software\Microsoft\Windows NT\CurrentVersion\Time Zones";
    let first = format!(r"{ZONES}\(UTC) Coordinated Universal Time");
    // What each start finds, and would write.
    let current = r"System\ControlSet001\Control\TimeZoneInformation";
    system.set_text(current, "StandardName", "Coordinated Universal Time");
    system.set_text(current, "TimeZoneKeyName", "(UTC) Coordinated Universal Time");
    system.copy_values(&format!(r"{ZONES}\UTC"), &first, &["Display", "Dlt", "Std", "TZI"]);
}

/// Set-up finds a graphics card with a random id, and in no fixed order. Wine finds it again where it has a desktop.
fn display(system: &mut Registry) {
    system.remove(r"System\ControlSet001\Enum\PCI");
    system.remove(r"System\ControlSet001\Enum\DISPLAY");
    system.remove(r"System\ControlSet001\Control\Video");
    for class in ["{4D36E968-E325-11CE-BFC1-08002BE10318}", "{4D36E96E-E325-11CE-BFC1-08002BE10318}"] {
        system.remove(&format!(r"System\ControlSet001\Control\Class\{class}\0000"));
    }
}

fn version(system: &mut Registry, family: Family) {
    for node in [CURRENT_VERSION, r"Software\Wow6432Node\Microsoft\Windows NT\CurrentVersion"] {
        let number = BUILD.to_string();
        let texts = [
            ("CurrentBuild", number.as_str()),
            ("CurrentBuildNumber", number.as_str()),
            ("CurrentVersion", "6.3"),
            ("ProductName", "Windows Server 2022 Datacenter"),
            ("EditionID", family.edition()),
            ("InstallationType", family.installation_type()),
            ("DisplayVersion", "21H2"),
            ("ReleaseId", "2009"),
            ("SystemRoot", r"C:\Windows"),
            ("PathName", r"C:\Windows"),
            ("CSDVersion", ""),
        ];
        for (name, text) in texts {
            system.set_text(node, name, text);
        }
        system.set_number(node, "CurrentMajorVersionNumber", 10);
        system.set_number(node, "CurrentMinorVersionNumber", 0);
        system.set_number(node, "UBR", REVISION);
        // When and by whom the base was made is not part of it.
        for name in ["InstallDate", "InstallTime", "RegisteredOwner", "RegisteredOrganization", "ProductId"] {
            system.remove_value(node, name);
        }
    }
    system.set_text(r"System\ControlSet001\Control\ProductOptions", "ProductType", "ServerNT");
    system.set_empty_list(r"System\ControlSet001\Control\ProductOptions", "ProductSuite");
    // Made anew in each container; a fixed one would be the same key everywhere.
    system.remove_value(r"Software\Microsoft\Cryptography", "MachineGuid");
}

fn processes(system: &mut Registry) {
    // No debugger: it would write its report to the program's own output. An empty value must exist, a missing one
    // means Wine's default.
    for node in [r"Software", r"Software\Wow6432Node"] {
        system.set_text(&format!(r"{node}\Microsoft\Windows NT\CurrentVersion\AeDebug"), "Debugger", "");
        system.set_text(&format!(r"{node}\Microsoft\Windows NT\CurrentVersion\AeDebug"), "Auto", "1");
    }
    let environment = r"System\ControlSet001\Control\Session Manager\Environment";
    system.set_expandable(environment, "ComSpec", r"%SystemRoot%\system32\cmd.exe");
    system.set_expandable(
        environment,
        "Path",
        r"%SystemRoot%\system32;%SystemRoot%;%SystemRoot%\System32\Wbem;%SystemRoot%\System32\WindowsPowerShell\v1.0\",
    );
    system.set_text(environment, "PATHEXT", ".COM;.EXE;.BAT;.CMD;.VBS;.VBE;.JS;.JSE;.WSF;.WSH;.MSC");
    system.set_text(environment, "OS", "Windows_NT");
    system.remove_value(environment, "winsysdir");
    system.set_expandable(environment, "TEMP", r"%SystemRoot%\TEMP");
    system.set_expandable(environment, "TMP", r"%SystemRoot%\TEMP");
}

/// Changes `user.reg`.
pub(super) fn apply_to_user(user: &mut Registry) {
    // Made anew at each boot, for the user and the computer that there are then.
    user.remove("Volatile Environment");
    for name in ["TEMP", "TMP"] {
        user.remove_value("Environment", name);
    }
}

fn services(system: &mut Registry, exists: &dyn Fn(&str) -> bool) {
    for name in NO_SUCH_DEVICES {
        system.remove(&format!(r"{SERVICES}\{name}"));
    }
    // Devices enumerated at the root: the service manager would start their drivers at each boot.
    system.remove(r"System\ControlSet001\Enum\ROOT\WINE");
    for name in system.children(SERVICES) {
        let key = format!(r"{SERVICES}\{name}");
        let image = system.text(&key, "ImagePath").and_then(|image| image_name(&image));
        let library = system.text(&format!(r"{key}\Parameters"), "ServiceDll");
        let library = library.and_then(|library| image_name(&library));
        if image.is_some_and(|i| !exists(&i)) || library.is_some_and(|l| !exists(&l)) {
            system.remove(&key);
        }
    }
    // The drivers that programs need come first and in one host process: they share their load order group.
    let starts = [(&["MountMgr", "nsiproxy"][..], 0), (ON_DEMAND, 3)];
    for (name, start) in
        starts.into_iter().flat_map(|(names, start)| names.iter().map(move |name| (name, start)))
    {
        let key = format!(r"{SERVICES}\{name}");
        if system.text(&key, "ImagePath").is_some() {
            system.set_number(&key, "Start", start);
        }
    }
    let agent = format!(r"{SERVICES}\CExecSvc");
    system.set_text(&agent, "DisplayName", "Container Execution Agent");
    system.set_text(&agent, "Description", "Runs and watches processes in this container for its host.");
    system.set_expandable(&agent, "ImagePath", r"%SystemRoot%\system32\CExecSvc.exe");
    system.set_text(&agent, "ObjectName", "LocalSystem");
    for (name, value) in [("Type", 0x10), ("Start", 2), ("ErrorControl", 1)] {
        system.set_number(&agent, name, value);
    }
}

/// The file name of the image in a value such as `%SystemRoot%\system32\svchost.exe -k netsvcs`.
fn image_name(value: &str) -> Option<String> {
    let program = value.trim_start_matches('"').split([' ', '"']).next()?;
    Some(program.rsplit('\\').next()?.to_ascii_lowercase()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_without_their_image_are_gone() {
        let mut system = Registry::default();
        for (name, image) in
            [("Spooler", r"C:\windows\system32\spoolsv.exe"), ("RpcSs", r"C:\windows\system32\rpcss.exe x")]
        {
            system.set_text(&format!(r"{SERVICES}\{name}"), "ImagePath", image);
        }
        services(&mut system, &|name| name == "rpcss.exe");
        assert_eq!(system.children(SERVICES), ["CExecSvc", "RpcSs"]);
    }

    #[test]
    fn the_version_is_server_2022() {
        let mut system = Registry::default();
        version(&mut system, Family::NanoServer);
        assert_eq!(system.text(CURRENT_VERSION, "CurrentBuildNumber").as_deref(), Some("20348"));
        assert_eq!(system.text(CURRENT_VERSION, "InstallationType").as_deref(), Some("Nano Server"));
    }
}

//! Options of the local driver (`type`, `device`, `o`, `size`): what may be said, and what is mounted by them.

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use silo_sandbox::mount_words;

/// All that there are.
const KNOWN: &[&str] = &["type", "o", "device", "size"];
/// Those that an option does not go without.
const NEEDED: &[(&str, &[&str])] =
    &[("device", &["type"]), ("type", &["device"]), ("o", &["device", "type"])];

/// Refuses what the driver does not take, in dockerd's words.
pub(crate) fn check(options: &BTreeMap<String, String>) -> Result<(), String> {
    if let Some(unknown) = options.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(format!("invalid option: {unknown:?}"));
    }
    if let (Some("cifs"), Some(device)) = (get(options, "type"), get(options, "device"))
        && host_of(device).is_some_and(|host| host.contains(':') && !host.contains('['))
    {
        return Err("port not allowed in CIFS device URL, include 'port' in 'o='".to_owned());
    }
    if let Some(size) = options.get("size")
        && crate::size::bytes(size).ok_or_else(|| format!("invalid size: '{size}'"))? > 0
    {
        return Err("quota size requested but no quota support".to_owned());
    }
    for (option, needed) in NEEDED {
        if options.contains_key(*option)
            && let Some(missing) = needed.iter().find(|name| !options.contains_key(**name))
        {
            return Err(format!("missing required option: {missing:?}"));
        }
    }
    Ok(())
}

/// An option that says something.
fn get<'o>(options: &'o BTreeMap<String, String>, name: &str) -> Option<&'o str> {
    options.get(name).map(String::as_str).filter(|text| !text.is_empty())
}

/// Whether a volume with these options is a mount, which is made when it is used.
pub(crate) fn is_mount(options: &BTreeMap<String, String>) -> bool {
    get(options, "device").is_some() || get(options, "type").is_some()
}

/// The host in `//host/share` or `scheme://host/share`.
fn host_of(device: &str) -> Option<&str> {
    let (_, rest) = device.split_once("//")?;
    Some(rest.split('/').next().unwrap_or(rest)).filter(|host| !host.is_empty())
}

fn value<'o>(options: &'o str, name: &str) -> Option<&'o str> {
    let mut words = options.split(',').filter_map(|word| word.split_once('='));
    words.find(|(key, _)| *key == name).map(|(_, value)| value).filter(|value| !value.is_empty())
}

fn address_of(host: &str) -> Result<String, String> {
    let failed = |why: String| format!("error resolving passed in network volume address: {why}");
    let mut found = (host, 0).to_socket_addrs().map_err(|e| failed(mount_words::reason(&e)))?;
    found.next().map(|a| a.ip().to_string()).ok_or_else(|| failed(format!("lookup {host}: no such host")))
}

/// Makes the mount of a volume with these options at `at`. The error is dockerd's.
pub(crate) fn mount(options: &BTreeMap<String, String>, at: &Path) -> Result<(), String> {
    let kind = get(options, "type").unwrap_or_default();
    let mut device = get(options, "device").ok_or("missing device in volume options")?.to_owned();
    let mut words = get(options, "o").unwrap_or_default().to_owned();
    // The kernel takes addresses only.
    if matches!(kind, "nfs" | "cifs") {
        let is_v4 = |text: &str| matches!(text.parse(), Ok(IpAddr::V4(_)));
        if let Some(host) = value(&words, "addr").map(str::to_owned) {
            if !is_v4(&host) {
                words = words.replacen(&format!("addr={host}"), &format!("addr={}", address_of(&host)?), 1);
            }
        } else if let ("cifs", Some(host)) = (kind, host_of(&device).map(str::to_owned))
            && host.parse::<IpAddr>().is_err()
        {
            device = device.replacen(&host, &address_of(&host)?, 1);
        }
    }
    mount_words::mount(&device, at, kind, &words).map_err(|e| {
        let mut text = e.to_string();
        if let Some(password) = value(&words, "password") {
            text = text.replacen(&format!("password={password}"), "password=********", 1);
        }
        format!("failed to mount local volume: {text}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[&str]) -> BTreeMap<String, String> {
        let pair = |text: &&str| text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap();
        list.iter().map(pair).collect()
    }

    #[test]
    fn what_the_driver_takes() {
        let says = |list: &[&str], wanted: Result<(), &str>| {
            assert_eq!(check(&options(list)), wanted.map_err(str::to_owned), "{list:?}");
        };
        says(&[], Ok(()));
        says(&["type=none", "o=bind", "device=/x"], Ok(()));
        says(&["type=tmpfs", "device=tmpfs"], Ok(()));
        says(&["color=red"], Err("invalid option: \"color\""));
        says(&["type=nfs"], Err("missing required option: \"device\""));
        says(&["device=/x"], Err("missing required option: \"type\""));
        says(&["o=bind"], Err("missing required option: \"device\""));
        says(&["o=bind", "device=/x"], Err("missing required option: \"type\""));
        says(&["size=10m"], Err("quota size requested but no quota support"));
        says(&["size=0"], Ok(()));
        says(&["size=lots"], Err("invalid size: 'lots'"));
        let port = "port not allowed in CIFS device URL, include 'port' in 'o='";
        says(&["type=cifs", "device=//host:1/share"], Err(port));
    }

    #[test]
    fn a_mount_that_fails_hides_the_password() {
        let list = ["type=nosuchfs", "device=//host/share", "o=username=u,password=secret"];
        let said = mount(&options(&list), Path::new("/proc")).unwrap_err();
        assert_eq!(
            said,
            "failed to mount local volume: mount //host/share:/proc, data: username=u,password=********: no such device"
        );
    }
}

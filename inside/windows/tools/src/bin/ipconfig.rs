//! `ipconfig`: the machine's adapters, in the layout of Windows' own; Wine's tells no name servers.
//!
//! Microsoft, "ipconfig": https://learn.microsoft.com/windows-server/administration/windows-commands/ipconfig

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};

use silo_tools::network::{adapters, machine, Adapter};
use silo_tools::sentence;

const USAGE: &str = "
USAGE:
    ipconfig [/? | /all | /flushdns]

    /?          Display this help message
    /all        Display full configuration information.
    /flushdns   Purges the DNS Resolver cache.

The addresses are the engine's to give: /renew, /release, /registerdns and the like have nothing to do here.
";

fn line(name: &str, value: impl Display) {
    println!("   {}: {}", spaced(name), value);
}

/// A name and the dots after it, every second column.
fn spaced(name: &str) -> String {
    let mut out = name.to_owned();
    while out.len() < 34 {
        out.push(if out.len() % 2 == 0 { '.' } else { ' ' });
    }
    out
}

/// A list below a name, each further one in a line of its own.
fn lines(name: &str, values: &[String]) {
    line(name, values.first().map_or("", |v| v));
    for value in values.iter().skip(1) {
        println!("{:39}{}", "", value);
    }
}

fn mask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0))
}

fn show(adapter: &Adapter, everything: bool) {
    println!("\nEthernet adapter {}:\n", adapter.name);
    line("Connection-specific DNS Suffix  ", &adapter.suffix);
    if everything {
        let mac: Vec<String> = adapter.mac.iter().map(|b| format!("{:02X}", b)).collect();
        line("Description", &adapter.description);
        line("Physical Address", mac.join("-"));
        line("DHCP Enabled", "No");
        line("Autoconfiguration Enabled", "Yes");
    }
    let preferred = if everything { "(Preferred)" } else { "" };
    for (address, _) in adapter.addresses.iter().filter(|(a, _)| a.is_ipv6()) {
        let local = matches!(address, IpAddr::V6(a) if a.segments()[0] & 0xffc0 == 0xfe80);
        let name = if local { "Link-local IPv6 Address" } else { "IPv6 Address" };
        line(name, format!("{}{}", address, preferred));
    }
    for (address, prefix) in adapter.addresses.iter().filter(|(a, _)| a.is_ipv4()) {
        line("IPv4 Address", format!("{}{}", address, preferred));
        line("Subnet Mask", mask(*prefix));
    }
    let texts = |list: &[IpAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    lines("Default Gateway", &texts(&adapter.gateways));
    if everything {
        lines("DNS Servers", &texts(&adapter.servers));
        line("NetBIOS over Tcpip", "Disabled");
    }
}

fn fail(error: u32) -> ! {
    eprintln!("An internal error occurred: {}", sentence(error));
    std::process::exit(1);
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).map(|w| w.to_ascii_lowercase().replace('-', "/")).collect();
    let everything = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => false,
        ["/all"] => true,
        ["/?"] => return print!("{}", USAGE),
        ["/flushdns"] => {
            // Nothing is kept between questions.
            return println!("\nWindows IP Configuration\n\nSuccessfully flushed the DNS Resolver Cache.");
        }
        [word, ..] => {
            println!("\nError: unrecognized or incomplete command line: {}\n{}", word, USAGE);
            std::process::exit(1);
        }
    };
    println!("\nWindows IP Configuration\n");
    if everything {
        let machine = machine().unwrap_or_else(|e| fail(e));
        line("Host Name", machine.host);
        line("Primary Dns Suffix  ", "");
        line("Node Type", "Hybrid");
        line("IP Routing Enabled", "No");
        line("WINS Proxy Enabled", "No");
        if !machine.domain.is_empty() {
            line("DNS Suffix Search List", machine.domain);
        }
    }
    for adapter in adapters().unwrap_or_else(|e| fail(e)) {
        show(&adapter, everything);
    }
}

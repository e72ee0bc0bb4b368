//! The one file that names both axes: what each isolation gives, as data for image, network and guest.

use silo_guest::{Guest, Identity, Os};
use silo_network::{AdapterForm, ResolverForm};
use silo_sandbox::Isolation;

use crate::error::{EngineError, Result};

/// What a sandbox of an isolation gives its containers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// How a container's end of its network is made.
    pub(crate) adapter: AdapterForm,
    /// Where what is changed of adapters while it runs is to be done.
    pub(crate) adapters: Adapters,
    /// Where its name server listens.
    pub(crate) resolver: ResolverForm,
    /// Whose machine identity it shows.
    pub(crate) identity: Identity,
    /// Whose kernel it runs on.
    pub(crate) kernel: Kernel,
}

/// Where a container's adapters are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adapters {
    /// In its network namespace on the host, whatever they are.
    Here,
    /// Its sandbox carries on those of that namespace that have an end on the host, and is told what becomes of them.
    Carried,
}

/// Whose kernel a container runs on: what of the host it can be given, and where its files are while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// The host's: its namespaces and devices can be shared, its files are opened through `/proc`.
    Shared,
    /// Its own: its files are asked for.
    Own,
}

/// The facts of an isolation.
pub(crate) fn facts(isolation: Isolation) -> Facts {
    match isolation {
        Isolation::Process => Facts {
            adapter: AdapterForm::Veth,
            adapters: Adapters::Here,
            resolver: ResolverForm::Loopback,
            identity: Identity::Hosts,
            kernel: Kernel::Shared,
        },
        Isolation::Hyperv => Facts {
            adapter: AdapterForm::Veth,
            adapters: Adapters::Carried,
            resolver: ResolverForm::Link,
            identity: Identity::Own,
            kernel: Kernel::Own,
        },
    }
}

/// The guest of an image's OS.
pub(crate) fn guest(os: Os) -> Result<&'static dyn Guest> {
    silo_guest::of(os).ok_or_else(|| {
        EngineError::invalid(format!("this build of silo has no guest for {} images", os.as_str()))
    })
}

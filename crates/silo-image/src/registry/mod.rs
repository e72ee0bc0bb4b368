//! Registries: the distribution API's two halves, who we are to them, and how they are reached.

mod auth;
mod cancel;
mod challenge;
pub(crate) mod client;
pub(crate) mod error;
pub(crate) mod search;
mod settings;
pub(crate) mod slots;
pub(crate) mod transport;
pub(crate) mod upload;
pub(crate) mod url;

pub use auth::Credentials;
pub use cancel::Cancel;
pub use error::RegistryError;
pub(crate) use settings::Endpoint;
pub use settings::{DEFAULT_SERVER, RegistrySettings};

//! The accounts of a Windows container.

use crate::contract::GuestError;

/// Who a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    /// May change everything in the container.
    Administrator,
    /// May not change the system.
    User,
}

impl Account {
    /// From `--user`, an image's `User`, or nothing. A domain before the name is accepted if it is one of those that
    /// Windows gives these accounts.
    pub(super) fn parse(user: &str) -> Result<Account, GuestError> {
        let (domain, name) = user.rsplit_once('\\').unwrap_or(("", user));
        let known_domain =
            ["", ".", "user manager", "nt authority"].contains(&domain.to_ascii_lowercase().as_str());
        match name.to_ascii_lowercase().as_str() {
            "" | "containeradministrator" | "system" if known_domain => Ok(Account::Administrator),
            "containeruser" if known_domain => Ok(Account::User),
            _ => Err(GuestError::NotFound(format!(
                "unable to find user {user}: a Windows container has ContainerAdministrator and ContainerUser"
            ))),
        }
    }

    /// The account's name, which also is its profile's.
    pub(super) fn name(self) -> &'static str {
        match self {
            Account::Administrator => "ContainerAdministrator",
            Account::User => "ContainerUser",
        }
    }

    /// Its profile on `C:`, with slashes.
    pub(super) fn profile(self) -> String {
        format!("Users/{}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_named_without_case_and_with_their_domain() {
        assert_eq!(Account::parse("").unwrap(), Account::Administrator);
        assert_eq!(Account::parse("containeruser").unwrap(), Account::User);
        assert_eq!(Account::parse(r"User Manager\ContainerAdministrator").unwrap(), Account::Administrator);
        assert!(Account::parse("root").is_err());
        assert!(Account::parse(r"CORP\ContainerUser").is_err());
    }
}

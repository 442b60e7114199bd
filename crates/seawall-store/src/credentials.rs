use std::fmt;

use seawall_core::Secret;

/// What a store is shown by whoever opens it. Its secrets are never shown to people.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing: who may use the store is decided by who runs the process and where.
    #[default]
    OfTheProcess,
    /// A name, such as an access key's id or a user's, and the secret that goes with it.
    Named {
        /// The name.
        name: String,
        /// The secret.
        secret: Secret,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfTheProcess => f.write_str("OfTheProcess"),
            Self::Named { secret, .. } => {
                f.debug_struct("Named").field("secret", secret).finish_non_exhaustive()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_name_nor_secret_is_shown() {
        let secret = Secret::new("hunter2");
        let shown = format!("{:?}", Credentials::Named { name: "AKIA7".to_owned(), secret });
        assert!(!shown.contains("hunter2") && !shown.contains("AKIA7"), "{shown}");
    }
}

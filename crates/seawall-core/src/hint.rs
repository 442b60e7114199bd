use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Action;

/// A sentence that tells what to do, or what to know, in which everything Seawall can be asked to do
/// is a value: whoever shows it says how that is asked for ([`Hint::text`]).
///
/// ```
/// use seawall_core::{Action, hint};
/// let hint = hint!["Run ", Action::Verify, " to learn which backups are affected."];
/// let shown = hint.text(|action| format!("<button>{action:?}</button>"));
/// assert_eq!(shown, "Run <button>Verify</button> to learn which backups are affected.");
/// ```
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hint(Vec<Part>);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Part {
    Text(String),
    Run(Action),
}

impl Hint {
    /// The hint, and what comes behind it.
    #[must_use]
    pub fn and(mut self, next: impl Into<Self>) -> Self {
        for part in next.into().0 {
            match (self.0.last_mut(), part) {
                (Some(Part::Text(text)), Part::Text(more)) => text.push_str(&more),
                (_, part) => self.0.push(part),
            }
        }
        self
    }

    /// The sentence for a person, with each action as `command` writes it.
    #[must_use]
    pub fn text(&self, command: impl Fn(&Action) -> String) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Run(action) => command(action),
        });
        parts.collect()
    }

    /// What it tells to run, in its order.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Run(action) => Some(action),
        })
    }

    /// The one action that is all of it, if it says nothing else.
    #[must_use]
    pub fn sole_action(&self) -> Option<&Action> {
        match self.0.as_slice() {
            [Part::Run(action)] => Some(action),
            _ => None,
        }
    }
}

impl From<&str> for Hint {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for Hint {
    fn from(text: String) -> Self {
        Self(vec![Part::Text(text)])
    }
}

impl From<Action> for Hint {
    fn from(action: Action) -> Self {
        Self(vec![Part::Run(action)])
    }
}

/// For developers: actions by their names here.
impl fmt::Debug for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(|action| format!("{action:?}")))
    }
}

/// A [`Hint`] of texts and [`Action`]s, in their order.
#[macro_export]
macro_rules! hint {
    ($($part:expr),+ $(,)?) => { $crate::Hint::default()$(.and($part))+ };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_side_by_side_are_one_and_actions_stay_values() {
        let hint = hint!["Look", " again: ", Action::List, "."];
        assert_eq!(hint.0.len(), 3);
        assert_eq!(hint.actions().collect::<Vec<_>>(), [&Action::List]);
        assert_eq!(hint.text(|_| "`x`".to_owned()), "Look again: `x`.");
        assert_eq!(hint.sole_action(), None);
        assert_eq!(Hint::from(Action::List).sole_action(), Some(&Action::List));
    }
}

use serde::Serialize;

use super::{Finding, Severity};

/// What a check comes to. What is acknowledged is no news, and advice is no reason to wake anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "protection", rename_all = "lowercase")]
pub enum Protection {
    /// Nothing is left to do.
    Protected,
    /// It is protected, and could be better.
    Advised {
        /// How many pieces of advice there are.
        suggestions: usize,
    },
    /// Something endangers recovery.
    Endangered {
        /// How many findings there are, advice among them.
        findings: usize,
    },
}

impl Protection {
    /// What the findings come to.
    #[must_use]
    pub fn of(findings: &[Finding]) -> Self {
        let open = || findings.iter().filter(|finding| finding.acknowledged.is_none());
        let advice = open().filter(|finding| finding.severity == Severity::Advice).count();
        match (open().count(), advice) {
            (0, _) => Self::Protected,
            (findings, suggestions) if findings == suggestions => Self::Advised { suggestions },
            (findings, _) => Self::Endangered { findings },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::FindingId;

    fn finding(severity: Severity) -> Finding {
        Finding {
            id: FindingId::SameDisk,
            severity,
            what: "something".to_owned(),
            fix: "do it".into(),
            acknowledged: None,
        }
    }

    #[test]
    fn a_cluster_with_nothing_but_advice_or_what_is_known_is_protected() {
        let (advice, warning) = (finding(Severity::Advice), finding(Severity::Warning));
        let known = Finding { acknowledged: Some("by design".to_owned()), ..warning.clone() };
        let advised = Protection::Advised { suggestions: 1 };
        let endangered = |findings| Protection::Endangered { findings };
        for (findings, expected) in [
            (vec![], Protection::Protected),
            (vec![advice.clone()], advised),
            (vec![warning.clone()], endangered(1)),
            (vec![warning, advice.clone()], endangered(2)),
            (vec![known.clone()], Protection::Protected),
            (vec![known, advice], advised),
        ] {
            assert_eq!(Protection::of(&findings), expected);
        }
    }
}

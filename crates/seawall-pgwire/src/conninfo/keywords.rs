//! The connection keywords of libpq (`PQconninfoOptions`, fe-connect.c, 18) and what Seawall makes
//! of each.

/// What Seawall does with a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Support {
    /// It has its libpq meaning.
    Used,
    /// It is checked for nothing: it cannot matter to Seawall.
    Ignored,
    /// Only these values are accepted; any other asks for something Seawall does not do.
    Only(&'static [&'static str]),
}

/// A connection keyword.
#[derive(Debug)]
pub(crate) struct Keyword {
    pub(crate) name: &'static str,
    /// The environment variable that gives its default.
    pub(crate) variable: Option<&'static str>,
    pub(crate) support: Support,
}

impl Keyword {
    /// Whether the value must not be shown.
    pub(crate) fn is_secret(&self) -> bool {
        is_secret(self.name)
    }
}

pub(crate) fn is_secret(keyword: &str) -> bool {
    matches!(
        keyword,
        "password"
            | "sslpassword"
            | "scram_client_key"
            | "scram_server_key"
            | "oauth_client_secret"
    )
}

const fn used(name: &'static str, variable: Option<&'static str>) -> Keyword {
    Keyword { name, variable, support: Support::Used }
}

const fn ignored(name: &'static str, variable: Option<&'static str>) -> Keyword {
    Keyword { name, variable, support: Support::Ignored }
}

const fn only(
    name: &'static str,
    variable: Option<&'static str>,
    values: &'static [&'static str],
) -> Keyword {
    Keyword { name, variable, support: Support::Only(values) }
}

/// Every keyword libpq 18 knows.
pub(crate) const KEYWORDS: &[Keyword] = &[
    used("service", Some("PGSERVICE")),
    used("servicefile", Some("PGSERVICEFILE")),
    used("user", Some("PGUSER")),
    used("password", Some("PGPASSWORD")),
    used("passfile", Some("PGPASSFILE")),
    used("channel_binding", Some("PGCHANNELBINDING")),
    used("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    used("dbname", Some("PGDATABASE")),
    used("host", Some("PGHOST")),
    used("hostaddr", Some("PGHOSTADDR")),
    used("port", Some("PGPORT")),
    // Text is always UTF-8 here, whatever is asked for.
    ignored("client_encoding", Some("PGCLIENTENCODING")),
    used("options", Some("PGOPTIONS")),
    used("application_name", Some("PGAPPNAME")),
    used("fallback_application_name", None),
    used("keepalives", None),
    used("keepalives_idle", None),
    used("keepalives_interval", None),
    used("keepalives_count", None),
    used("tcp_user_timeout", None),
    used("sslmode", Some("PGSSLMODE")),
    used("sslnegotiation", Some("PGSSLNEGOTIATION")),
    ignored("sslcompression", Some("PGSSLCOMPRESSION")),
    used("sslcert", Some("PGSSLCERT")),
    used("sslkey", Some("PGSSLKEY")),
    only("sslcertmode", Some("PGSSLCERTMODE"), &["allow", "disable"]),
    only("sslpassword", None, &[""]),
    used("sslrootcert", Some("PGSSLROOTCERT")),
    used("sslcrl", Some("PGSSLCRL")),
    only("sslcrldir", Some("PGSSLCRLDIR"), &[""]),
    only("sslkeylogfile", None, &[""]),
    used("sslsni", Some("PGSSLSNI")),
    used("requirepeer", Some("PGREQUIREPEER")),
    used("require_auth", Some("PGREQUIREAUTH")),
    only("min_protocol_version", Some("PGMINPROTOCOLVERSION"), &["", "3.0"]),
    ignored("max_protocol_version", Some("PGMAXPROTOCOLVERSION")),
    used("ssl_min_protocol_version", Some("PGSSLMINPROTOCOLVERSION")),
    used("ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION")),
    only("gssencmode", Some("PGGSSENCMODE"), &["disable", "prefer"]),
    ignored("krbsrvname", Some("PGKRBSRVNAME")),
    ignored("gsslib", Some("PGGSSLIB")),
    ignored("gssdelegation", Some("PGGSSDELEGATION")),
    used("replication", None),
    used("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    only("load_balance_hosts", Some("PGLOADBALANCEHOSTS"), &["disable"]),
    only("scram_client_key", None, &[""]),
    only("scram_server_key", None, &[""]),
    only("oauth_issuer", None, &[""]),
    only("oauth_client_id", None, &[""]),
    only("oauth_client_secret", None, &[""]),
    only("oauth_scope", None, &[""]),
];

/// The keyword of that name.
pub(crate) fn find(name: &str) -> Option<&'static Keyword> {
    KEYWORDS.iter().find(|keyword| keyword.name == name)
}

/// The keyword somebody who wrote `name` probably meant.
pub(crate) fn suggest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let alias = match name.as_str() {
        "database" | "db" => Some("dbname"),
        "username" | "role" => Some("user"),
        "hostname" | "server" => Some("host"),
        "pass" | "pwd" => Some("password"),
        "ssl" => Some("sslmode"),
        "timeout" => Some("connect_timeout"),
        _ => None,
    };
    alias.or_else(|| {
        KEYWORDS
            .iter()
            .map(|keyword| (strsim::damerau_levenshtein(&name, keyword.name), keyword.name))
            .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 6)
            .min()
            .map(|(_, candidate)| candidate)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_keyword_is_listed_once() {
        let names: BTreeSet<&str> = KEYWORDS.iter().map(|keyword| keyword.name).collect();
        assert_eq!(names.len(), KEYWORDS.len());
    }

    #[test]
    fn near_misses_are_understood() {
        assert_eq!(suggest("hots"), Some("host"));
        assert_eq!(suggest("database"), Some("dbname"));
        assert_eq!(suggest("ssl_mode"), Some("sslmode"));
        assert_eq!(suggest("Host"), Some("host"));
        assert_eq!(suggest("target_session_attr"), Some("target_session_attrs"));
        assert_eq!(suggest("colour"), None);
    }
}

//! From the options of a connection string to everything a connection needs
//! (`conninfo_add_defaults` and `pqConnectOptions2`, fe-connect.c).

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use seawall_core::Secret;

use super::keywords::KEYWORDS;
use super::passfile::{Login, Passfile};
use super::{Conninfo, ConninfoError, Environment, PassfileWarning, service, shown};
use crate::config::{
    AllowedAuth, ChannelBinding, ClientCertificate, Config, DEFAULT_PORT, Host, HostPlace,
    Keepalive, Limits, Replication, RevocationList, RootCertificates, SslMode, TargetSessionAttrs,
    TlsSettings, TlsVersions,
};

/// Where a server's socket is when no host is named: Debian's and Red Hat's packages use the
/// first, PostgreSQL's own default is the second.
const DEFAULT_SOCKET_DIRECTORIES: [&str; 2] = ["/run/postgresql", "/tmp"];

/// Directories that a password file calls `localhost`.
const LOCALHOST_DIRECTORIES: [&str; 3] = ["/run/postgresql", "/var/run/postgresql", "/tmp"];

/// How long one address is tried unless `connect_timeout` says otherwise. libpq waits forever.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What `connect_timeout=0`, which is no limit to libpq, comes to.
const LONGEST_CONNECT_TIMEOUT: Duration = Duration::from_secs(3600);

/// A peer whose machine is gone is noticed within two minutes. Linux would begin to ask after two
/// hours, and a backup's session is idle for longer than firewalls remember it.
const DEFAULT_KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const DEFAULT_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const DEFAULT_KEEPALIVE_COUNT: u32 = 6;

impl Conninfo {
    /// Fills in what the options leave open: the service file, then the environment, then
    /// defaults; and looks passwords up. Reads files, blocking.
    ///
    /// # Errors
    /// [`ConninfoError`]
    pub fn resolve(&self, environment: &Environment) -> Result<Config, ConninfoError> {
        let mut options = self.clone();
        service::apply(&mut options, environment)?;
        for keyword in KEYWORDS {
            if let Some(value) = keyword.variable.and_then(|name| environment.variable(name)) {
                options.set_default(keyword.name, value)?;
            }
        }
        options.config(environment)
    }

    fn config(&self, environment: &Environment) -> Result<Config, ConninfoError> {
        let user = self.text("user").or(environment.os_user()).ok_or(ConninfoError::NoUser)?;
        let dbname = self.text("dbname").unwrap_or(user);
        let mut hosts = self.hosts()?;
        let warnings = self.look_up_passwords(&mut hosts, dbname, user, environment);
        let application_name = self.text("application_name");
        let application_name = application_name.or(self.text("fallback_application_name"));
        Ok(Config {
            hosts,
            user: user.to_owned(),
            dbname: dbname.to_owned(),
            application_name: application_name.unwrap_or("seawall").to_owned(),
            options: self.text("options").map(str::to_owned),
            replication: self.replication()?,
            startup_parameters: Vec::new(),
            connect_timeout: self.connect_timeout()?,
            time_for_all_hosts: None,
            target_session_attrs: self.target_session_attrs()?,
            tls: self.tls(environment)?,
            channel_binding: self.channel_binding()?,
            allowed_auth: self.allowed_auth()?,
            require_peer: self.text("requirepeer").map(str::to_owned),
            keepalive: self.keepalive()?,
            limits: Limits::default(),
            sessions: None,
            warnings,
            passfile: self.passfile(environment),
        })
    }

    /// A value that is there and not empty.
    fn text(&self, keyword: &str) -> Option<&str> {
        self.get(keyword).filter(|value| !value.is_empty())
    }

    fn list(&self, keyword: &str) -> Option<Vec<&str>> {
        self.text(keyword).map(|value| value.split(',').collect())
    }

    /// Hosts, addresses and ports, paired by position (`pqConnectOptions2`).
    fn hosts(&self) -> Result<Vec<Host>, ConninfoError> {
        let names = self.list("host");
        let addresses = self.list("hostaddr");
        let count = addresses.as_ref().or(names.as_ref()).map_or(1, Vec::len);
        if let (Some(names), Some(addresses)) = (&names, &addresses)
            && names.len() != addresses.len()
        {
            let (values, hosts) = (addresses.len(), names.len());
            return Err(ConninfoError::CountMismatch { keyword: "hostaddr", values, hosts });
        }
        let ports = self.ports(count)?;
        let mut hosts = Vec::with_capacity(count);
        for (index, port) in ports.into_iter().enumerate() {
            let name = item(names.as_deref(), index);
            for place in places(name, item(addresses.as_deref(), index))? {
                hosts.push(Host { place, port, password: None });
            }
        }
        Ok(hosts)
    }

    /// One port for each host; a single one is for all.
    fn ports(&self, hosts: usize) -> Result<Vec<u16>, ConninfoError> {
        let Some(list) = self.list("port") else { return Ok(vec![DEFAULT_PORT; hosts]) };
        let ports = list
            .iter()
            .map(|text| match text.trim() {
                "" => Ok(DEFAULT_PORT),
                text => text.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                    invalid("port", text, "numbers from 1 to 65535, separated by commas")
                }),
            })
            .collect::<Result<Vec<u16>, _>>()?;
        match *ports {
            [port] => Ok(vec![port; hosts]),
            _ if ports.len() == hosts => Ok(ports),
            _ => {
                let values = ports.len();
                Err(ConninfoError::CountMismatch { keyword: "port", values, hosts })
            }
        }
    }

    /// The password of the options is for every host; else each is looked up by itself.
    fn look_up_passwords(
        &self,
        hosts: &mut [Host],
        dbname: &str,
        user: &str,
        environment: &Environment,
    ) -> Vec<PassfileWarning> {
        if let Some(password) = self.text("password") {
            for host in hosts {
                host.password = Some(Secret::new(password));
            }
            return Vec::new();
        }
        let Some((path, _)) = self.passfile(environment) else { return Vec::new() };
        let passfile = match Passfile::read(&path) {
            Ok(passfile) => passfile,
            Err(warning) => return vec![warning],
        };
        for host in hosts {
            let port = host.port;
            host.password = passfile_hosts(&host.place)
                .iter()
                .find_map(|host| passfile.password(&Login { host, port, dbname, user }));
        }
        Vec::new()
    }

    /// The password file, and the user whose it is.
    fn passfile(&self, environment: &Environment) -> Option<(PathBuf, Option<String>)> {
        let home = || environment.home().map(|home| home.join(".pgpass"));
        let path = self.text("passfile").map(PathBuf::from).or_else(home)?;
        Some((path, environment.os_user().map(str::to_owned)))
    }

    fn replication(&self) -> Result<Replication, ConninfoError> {
        let Some(value) = self.text("replication") else { return Ok(Replication::No) };
        match value {
            "database" => Ok(Replication::Database),
            "true" | "on" | "yes" | "1" => Ok(Replication::Physical),
            "false" | "off" | "no" | "0" => Ok(Replication::No),
            _ => Err(invalid("replication", value, "true, false or database")),
        }
    }

    fn target_session_attrs(&self) -> Result<TargetSessionAttrs, ConninfoError> {
        let choices = [
            ("any", TargetSessionAttrs::Any),
            ("read-write", TargetSessionAttrs::ReadWrite),
            ("read-only", TargetSessionAttrs::ReadOnly),
            ("primary", TargetSessionAttrs::Primary),
            ("standby", TargetSessionAttrs::Standby),
            ("prefer-standby", TargetSessionAttrs::PreferStandby),
        ];
        self.choice("target_session_attrs", &choices, TargetSessionAttrs::Any)
    }

    fn channel_binding(&self) -> Result<ChannelBinding, ConninfoError> {
        let choices = [
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ];
        self.choice("channel_binding", &choices, ChannelBinding::Prefer)
    }

    /// `require_auth`: a list of methods, or of methods with `!` that are not allowed.
    fn allowed_auth(&self) -> Result<AllowedAuth, ConninfoError> {
        let Some(list) = self.list("require_auth") else {
            return Ok(AllowedAuth { none: true, password: true, md5: true, scram: true });
        };
        let negated = list.iter().all(|method| method.trim().starts_with('!'));
        let mut allowed =
            AllowedAuth { none: negated, password: negated, md5: negated, scram: negated };
        for method in list {
            let method = method.trim();
            let name = if negated { method.strip_prefix('!').unwrap_or(method) } else { method };
            match name {
                "none" => allowed.none = !negated,
                "password" => allowed.password = !negated,
                "md5" => allowed.md5 = !negated,
                "scram-sha-256" => allowed.scram = !negated,
                "gss" | "sspi" | "oauth" => {}
                _ => {
                    let expected = "password, md5, scram-sha-256 and none, all or none with \"!\"";
                    return Err(invalid("require_auth", method, expected));
                }
            }
        }
        Ok(allowed)
    }

    fn connect_timeout(&self) -> Result<Duration, ConninfoError> {
        let Some(seconds) = self.integer("connect_timeout")? else {
            return Ok(DEFAULT_CONNECT_TIMEOUT);
        };
        let limit = positive(Some(seconds)).map(|seconds| Duration::from_secs(seconds.into()));
        Ok(limit.unwrap_or(LONGEST_CONNECT_TIMEOUT).min(LONGEST_CONNECT_TIMEOUT))
    }

    fn keepalive(&self) -> Result<Keepalive, ConninfoError> {
        let seconds = |keyword| {
            let value = positive(self.integer(keyword)?);
            Ok::<_, ConninfoError>(value.map(|seconds| Duration::from_secs(seconds.into())))
        };
        let user_timeout_ms = positive(self.integer("tcp_user_timeout")?);
        Ok(Keepalive {
            enabled: self.integer("keepalives")? != Some(0),
            idle: seconds("keepalives_idle")?.unwrap_or(DEFAULT_KEEPALIVE_IDLE),
            interval: seconds("keepalives_interval")?.unwrap_or(DEFAULT_KEEPALIVE_INTERVAL),
            count: positive(self.integer("keepalives_count")?).unwrap_or(DEFAULT_KEEPALIVE_COUNT),
            user_timeout: user_timeout_ms.map(|ms| Duration::from_millis(ms.into())),
        })
    }

    fn tls(&self, environment: &Environment) -> Result<TlsSettings, ConninfoError> {
        let system = self.get("sslrootcert") == Some("system");
        let mode = self.ssl_mode(system)?;
        let direct = self.choice("sslnegotiation", &[("postgres", false), ("direct", true)], false);
        let direct = direct?;
        if direct && mode < SslMode::Require {
            return Err(contradiction("sslnegotiation=direct needs sslmode=require or higher"));
        }
        let home = environment.home().map(|home| home.join(".postgresql"));
        let file = self.text("sslrootcert").map(PathBuf::from);
        let file = file.or_else(|| home.as_ref().map(|home| home.join("root.crt")));
        let revoked = self.revocation_list(home.as_deref());
        let roots = match file {
            _ if system => RootCertificates::System,
            Some(file) => RootCertificates::File(file),
            None => RootCertificates::None,
        };
        Ok(TlsSettings {
            mode,
            direct,
            roots,
            revoked,
            client: self.client_certificate(home.as_deref()),
            versions: self.tls_versions()?,
            sni: self.integer("sslsni")? != Some(0),
        })
    }

    fn ssl_mode(&self, system_roots: bool) -> Result<SslMode, ConninfoError> {
        let choices = [
            ("disable", SslMode::Disable),
            ("allow", SslMode::Prefer),
            ("prefer", SslMode::Prefer),
            ("require", SslMode::Require),
            ("verify-ca", SslMode::VerifyCa),
            ("verify-full", SslMode::VerifyFull),
        ];
        let default = if system_roots { SslMode::VerifyFull } else { SslMode::Prefer };
        let mode = self.choice("sslmode", &choices, default)?;
        if system_roots && mode != SslMode::VerifyFull {
            // Anybody can get a certificate that the system's authorities vouch for.
            return Err(contradiction("sslrootcert=system needs sslmode=verify-full"));
        }
        Ok(mode)
    }

    /// `sslcrl`, else `root.crl` beside `root.crt` (`initialize_SSL`, fe-secure-openssl.c, 18).
    fn revocation_list(&self, home: Option<&std::path::Path>) -> Option<RevocationList> {
        let named = self.text("sslcrl").map(PathBuf::from);
        let explicit = named.is_some();
        let file = named.or_else(|| home.map(|home| home.join("root.crl")))?;
        Some(RevocationList { file, explicit })
    }

    fn client_certificate(&self, home: Option<&std::path::Path>) -> Option<ClientCertificate> {
        if self.get("sslcertmode") == Some("disable") {
            return None;
        }
        let named = |keyword| self.text(keyword).map(PathBuf::from);
        let in_home = |name| home.map(|home| home.join(name));
        let certificate = named("sslcert");
        Some(ClientCertificate {
            explicit: certificate.is_some(),
            certificate: certificate.or_else(|| in_home("postgresql.crt"))?,
            key: named("sslkey").or_else(|| in_home("postgresql.key"))?,
        })
    }

    /// TLS 1.2 and 1.3; older versions may be named as the minimum and are not spoken.
    fn tls_versions(&self) -> Result<TlsVersions, ConninfoError> {
        let choices = [("TLSv1", 10), ("TLSv1.1", 11), ("TLSv1.2", 12), ("TLSv1.3", 13)];
        let version = |keyword, default| match self.text(keyword) {
            Some(_) => self.choice(keyword, &choices, default),
            None => Ok(default),
        };
        let minimum = version("ssl_min_protocol_version", 12)?;
        let maximum = version("ssl_max_protocol_version", 13)?;
        let speaks = |version| (minimum..=maximum).contains(&version);
        let versions = TlsVersions { tls12: speaks(12), tls13: speaks(13) };
        if !versions.tls12 && !versions.tls13 {
            return Err(contradiction(
                "ssl_min_protocol_version and ssl_max_protocol_version leave neither TLS 1.2 nor 1.3",
            ));
        }
        Ok(versions)
    }

    fn integer(&self, keyword: &'static str) -> Result<Option<i32>, ConninfoError> {
        let Some(text) = self.get(keyword) else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| invalid(keyword, text, "a whole number"))
    }

    fn choice<T: Copy>(
        &self,
        keyword: &'static str,
        choices: &[(&str, T)],
        default: T,
    ) -> Result<T, ConninfoError> {
        let Some(value) = self.get(keyword) else { return Ok(default) };
        let chosen = choices.iter().find(|(name, _)| *name == value);
        chosen.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            invalid(keyword, value, format!("one of {}", names.join(", ")))
        })
    }
}

fn invalid(keyword: &'static str, value: &str, expected: impl Into<String>) -> ConninfoError {
    let value = shown::harmless_value(keyword, value).map(str::to_owned);
    ConninfoError::InvalidValue { keyword, value, expected: expected.into() }
}

fn contradiction(problem: &str) -> ConninfoError {
    ConninfoError::Contradiction(problem.to_owned())
}

/// Zero and negative numbers stand for "not set".
fn positive(number: Option<i32>) -> Option<u32> {
    number.and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0)
}

fn item<'a>(list: Option<&[&'a str]>, index: usize) -> &'a str {
    list.and_then(|list| list.get(index)).copied().unwrap_or_default().trim()
}

/// Where one element of `host` and `hostaddr` leads; without either, to the usual sockets.
fn places(name: &str, address: &str) -> Result<Vec<HostPlace>, ConninfoError> {
    if !address.is_empty() {
        let ip: IpAddr =
            address.parse().map_err(|_| invalid("hostaddr", address, "an IP address"))?;
        let name = if name.is_empty() { address } else { name };
        return Ok(vec![HostPlace::Tcp { name: name.to_owned(), address: Some(ip) }]);
    }
    if name.is_empty() {
        return Ok(DEFAULT_SOCKET_DIRECTORIES.map(|dir| HostPlace::Socket(dir.into())).into());
    }
    // `is_unixsock_path` (fe-connect.c)
    if name.starts_with(['/', '@']) {
        return Ok(vec![HostPlace::Socket(name.into())]);
    }
    // Hosts are shown. What cannot be one may be anything: `host=db;password=secret`.
    if name.contains(['=', ';', '@', '/', '\'', '"']) || name.contains(char::is_whitespace) {
        return Err(invalid(
            "host",
            name,
            "host names, addresses or directories, with commas between",
        ));
    }
    Ok(vec![HostPlace::Tcp { name: name.to_owned(), address: None }])
}

/// What a password file may call the host.
fn passfile_hosts(place: &HostPlace) -> Vec<&str> {
    match place {
        HostPlace::Tcp { name, .. } => vec![name],
        HostPlace::Socket(directory) => {
            let directory = directory.to_str().unwrap_or_default();
            let local = LOCALHOST_DIRECTORIES.contains(&directory).then_some("localhost");
            local.into_iter().chain([directory]).collect()
        }
    }
}

//! Connection URIs: `postgresql://user@host:port,host2/dbname?keyword=value`
//! (`conninfo_uri_parse_options`, fe-connect.c).

use super::{Conninfo, ConninfoError, keywords};

/// What follows the scheme of a connection URI; `None` if `text` is not one.
pub(super) fn strip_scheme(text: &str) -> Option<&str> {
    text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"))
}

/// Whether `text` looks like a URI (RFC 3986, section 3.1), whatever its scheme.
pub(super) fn has_scheme(text: &str) -> bool {
    text.trim_start().split_once("://").is_some_and(|(scheme, _)| {
        let part = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        !scheme.is_empty() && scheme.bytes().all(part)
    })
}

/// Parses what follows the scheme.
pub(super) fn parse(text: &str) -> Result<Conninfo, ConninfoError> {
    let mut conninfo = Conninfo::default();
    let (userinfo, rest) = split_userinfo(text);
    if let Some(userinfo) = userinfo {
        set_userinfo(&mut conninfo, userinfo)?;
    }
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at_checked(authority_end).unwrap_or((rest, ""));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if authority.contains('@') || path.contains('@') {
        return Err(invalid("\"@\" in a user name or password must be written %40, \"/\" %2F"));
    }
    set_hosts(&mut conninfo, authority)?;
    let dbname = path.strip_prefix('/').unwrap_or(path);
    if !dbname.is_empty() {
        conninfo.set("dbname", decode(dbname, "the database name")?)?;
    }
    set_query(&mut conninfo, query)?;
    Ok(conninfo)
}

fn invalid(problem: impl Into<String>) -> ConninfoError {
    ConninfoError::InvalidUri { problem: problem.into() }
}

/// The part before the first `@`, unless a `/` comes before it.
fn split_userinfo(text: &str) -> (Option<&str>, &str) {
    match text.find(['@', '/']).and_then(|end| text.split_at_checked(end)) {
        Some((userinfo, rest)) if rest.starts_with('@') => {
            (Some(userinfo), rest.strip_prefix('@').unwrap_or(rest))
        }
        _ => (None, text),
    }
}

fn set_userinfo(conninfo: &mut Conninfo, userinfo: &str) -> Result<(), ConninfoError> {
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    if !user.is_empty() {
        conninfo.set("user", decode(user, "the user name")?)?;
    }
    if !password.is_empty() {
        conninfo.set("password", decode(password, "the password")?)?;
    }
    Ok(())
}

/// Hosts and ports, separated by commas; a host may be a bracketed IPv6 address.
fn set_hosts(conninfo: &mut Conninfo, authority: &str) -> Result<(), ConninfoError> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for part in authority.split(',') {
        let (host, port) = split_host(part)?;
        hosts.push(host);
        ports.push(port);
    }
    let (hosts, ports) = (hosts.join(","), ports.join(","));
    if !hosts.is_empty() {
        conninfo.set("host", decode(&hosts, "the host")?)?;
    }
    if !ports.is_empty() {
        conninfo.set("port", decode(&ports, "the port")?)?;
    }
    Ok(())
}

fn split_host(part: &str) -> Result<(&str, &str), ConninfoError> {
    let Some(bracketed) = part.strip_prefix('[') else {
        return Ok(part.split_once(':').unwrap_or((part, "")));
    };
    let (address, rest) = bracketed
        .split_once(']')
        .ok_or_else(|| invalid("the IPv6 address has no closing \"]\""))?;
    if address.is_empty() {
        return Err(invalid("the IPv6 address is empty"));
    }
    match rest.strip_prefix(':') {
        Some(port) => Ok((address, port)),
        None if rest.is_empty() => Ok((address, "")),
        None => Err(invalid("only \":\" and a port may follow the \"]\" of an IPv6 address")),
    }
}

fn set_query(conninfo: &mut Conninfo, query: &str) -> Result<(), ConninfoError> {
    if query.is_empty() {
        return Ok(());
    }
    let mut after_secret = false;
    for parameter in query.strip_suffix('&').unwrap_or(query).split('&') {
        let (keyword, value) =
            parameter.split_once('=').ok_or_else(|| invalid("a query parameter has no \"=\""))?;
        // An "&" of a password that is not written %26 makes a parameter of its rest.
        if after_secret && keywords::find(keyword).is_none() {
            return Err(invalid(
                "what follows a password is no parameter: \"&\" in it is written %26",
            ));
        }
        after_secret = keywords::is_secret(keyword);
        if value.contains('=') {
            return Err(invalid("a query parameter has more than one \"=\""));
        }
        let keyword = decode(keyword, "a query parameter")?;
        let value = decode(value, "the value of a query parameter")?;
        // libpq takes JDBC's spelling too.
        if keyword == "ssl" && value == "true" {
            conninfo.set("sslmode", "require")?;
        } else {
            conninfo.set(&keyword, value)?;
        }
    }
    Ok(())
}

/// Undoes percent-encoding. Spaces around the text are dropped and refused within it, as libpq
/// does since 17.
fn decode(text: &str, part: &str) -> Result<String, ConninfoError> {
    let text = text.trim_start_matches(' ').trim_end_matches(' ');
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digits = (bytes.next().and_then(hex_digit), bytes.next().and_then(hex_digit));
                let (Some(high), Some(low)) = digits else {
                    return Err(invalid(format!("{part} has a \"%\" without two hex digits")));
                };
                match high * 16 + low {
                    0 => return Err(invalid(format!("{part} has a forbidden %00"))),
                    byte => decoded.push(byte),
                }
            }
            byte if byte.is_ascii_whitespace() => {
                return Err(invalid(format!("{part} has a space, which is written %20")));
            }
            byte => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).map_err(|_| invalid(format!("{part} is not UTF-8")))
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

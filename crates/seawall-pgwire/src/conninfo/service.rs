//! Service files: named sets of connection options (`parseServiceInfo`, fe-connect.c).

use std::io;
use std::path::{Path, PathBuf};

use super::{Conninfo, ConninfoError, Environment};

/// Adds the options of the service `conninfo` or the environment names, where `conninfo` has none.
pub(super) fn apply(
    conninfo: &mut Conninfo,
    environment: &Environment,
) -> Result<(), ConninfoError> {
    let named = conninfo.get("service").map(str::to_owned);
    let Some(service) = named.or_else(|| environment.variable("PGSERVICE")) else {
        return Ok(());
    };
    let mut searched = Vec::new();
    for (path, required) in files(conninfo, environment) {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => {
                searched.push(path);
                continue;
            }
            Err(error) => {
                return Err(ConninfoError::Unreadable { path, problem: error.to_string() });
            }
        };
        if apply_section(conninfo, &text, &service, &path)? {
            return Ok(());
        }
        searched.push(path);
    }
    Err(ConninfoError::ServiceNotFound { service, searched })
}

/// The files to look into, in order, and whether each must exist.
fn files(conninfo: &Conninfo, environment: &Environment) -> Vec<(PathBuf, bool)> {
    let named = conninfo.get("servicefile").map(str::to_owned);
    let named = named.or_else(|| environment.variable("PGSERVICEFILE"));
    let user = match named {
        Some(path) => Some((PathBuf::from(path), true)),
        None => environment.home().map(|home| (home.join(".pg_service.conf"), false)),
    };
    let system = environment.service_directories().into_iter();
    user.into_iter().chain(system.map(|dir| (dir.join("pg_service.conf"), false))).collect()
}

/// Whether the section was there.
fn apply_section(
    conninfo: &mut Conninfo,
    text: &str,
    service: &str,
    path: &Path,
) -> Result<bool, ConninfoError> {
    let header = format!("[{service}]");
    let mut found = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('[') {
            if found {
                return Ok(true);
            }
            found = line.starts_with(&header);
        } else if found {
            apply_line(conninfo, line).map_err(|problem| ConninfoError::ServiceFile {
                path: path.to_owned(),
                line: index + 1,
                problem,
            })?;
        }
    }
    Ok(found)
}

fn apply_line(conninfo: &mut Conninfo, line: &str) -> Result<(), String> {
    let (keyword, value) =
        line.split_once('=').ok_or_else(|| "expected keyword=value".to_owned())?;
    if matches!(keyword, "service" | "servicefile") {
        return Err(format!("\"{keyword}\" is not allowed in a service file"));
    }
    conninfo.set_default(keyword, value).map_err(|error| error.to_string())
}

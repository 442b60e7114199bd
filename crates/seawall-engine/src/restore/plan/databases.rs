use seawall_core::{Code, Error, Oid, Result};
use seawall_repo::manifest::Database;
use serde::{Deserialize, Serialize};

/// A database whose files are restored without content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOutDatabase {
    /// Its number, which is the name of its directories.
    pub oid: Oid,
    /// Its name.
    pub name: String,
}

/// Databases that `initdb` makes have lower numbers (`FirstNormalObjectId`, transam.h). They are
/// always restored: connections and new databases begin there.
const FIRST_NORMAL_OID: Oid = 16_384;

/// Which databases are left out when only those `wanted` are to be restored. `known` are the
/// cluster's as the backup began.
///
/// # Errors
/// [`Code::Usage`] for a name that is not among them, or if the backup does not tell them.
pub fn databases_left_out(
    known: Option<&[Database]>,
    wanted: &[String],
) -> Result<Vec<LeftOutDatabase>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let name = |database: &Database| String::from_utf8_lossy(&database.name).into_owned();
    let Some(known) = known else {
        return Err(Error::new(Code::Usage, "the backup does not tell which databases it has")
            .with_hint("Leave out --database, or choose a newer backup."));
    };
    if let Some(unknown) =
        wanted.iter().find(|wanted| !known.iter().any(|database| name(database) == **wanted))
    {
        let names: Vec<String> = known.iter().map(name).collect();
        return Err(Error::new(
            Code::Usage,
            format!("there was no database \"{unknown}\" when the backup began"),
        )
        .with_hint(format!("There were: {}.", names.join(", "))));
    }
    let left_out = known
        .iter()
        .filter(|database| database.oid >= FIRST_NORMAL_OID)
        .map(|database| LeftOutDatabase { oid: database.oid, name: name(database) })
        .filter(|database| !wanted.contains(&database.name));
    Ok(left_out.collect())
}

/// What a person should know of databases that are left out.
pub fn warning_of(left_out: &[LeftOutDatabase]) -> Option<String> {
    let drop = |database: &LeftOutDatabase| {
        format!("DROP DATABASE \"{}\";", database.name.replace('"', "\"\""))
    };
    let drops: Vec<String> = left_out.iter().map(drop).collect();
    (!drops.is_empty()).then(|| {
        format!(
            "The databases left out are there by name, and their files are empty: nobody can connect to them, and nothing of them can be had from this copy. Drop them first of all: {}",
            drops.join(" ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Database> {
        [(1, "template1"), (5, "postgres"), (16_384, "shop"), (16_400, "log\"s")]
            .map(|(oid, name)| Database { oid, name: name.as_bytes().to_vec().into() })
            .into()
    }

    #[test]
    fn postgresql_s_own_databases_are_always_restored() {
        let left_out = databases_left_out(Some(&known()), &["shop".to_owned()]).unwrap();
        assert_eq!(left_out, [LeftOutDatabase { oid: 16_400, name: "log\"s".to_owned() }]);
        let warning = warning_of(&left_out).unwrap();
        assert!(warning.ends_with("DROP DATABASE \"log\"\"s\";"), "{warning}");
        let all = databases_left_out(Some(&known()), &[]).unwrap();
        assert_eq!((all.len(), warning_of(&all)), (0, None));
        assert_eq!(databases_left_out(Some(&known()), &["postgres".to_owned()]).unwrap().len(), 2);
    }

    #[test]
    fn a_database_that_is_not_there_is_refused_with_those_that_are() {
        let error = databases_left_out(Some(&known()), &["Shop".to_owned()]).unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("shop")), "{error:?}");
        assert!(databases_left_out(None, &["shop".to_owned()]).is_err());
    }
}

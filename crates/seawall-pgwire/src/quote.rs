use postgres_protocol::escape;

/// `text` as an SQL string literal, safe whatever `standard_conforming_strings` is.
///
/// A NUL, which no PostgreSQL text can hold, is kept: the query that contains it is refused.
#[must_use]
pub fn quote_literal(text: &str) -> String {
    escape::escape_literal(text)
}

/// `name` as an SQL identifier, always in double quotes.
#[must_use]
pub fn quote_ident(name: &str) -> String {
    escape::escape_identifier(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_are_safe() {
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"a\'"), r" E'a\\'''");
        assert_eq!(quote_ident(r#"we"ird"#), r#""we""ird""#);
    }
}

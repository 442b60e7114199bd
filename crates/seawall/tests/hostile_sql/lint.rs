//! Reads SQL for what PostgreSQL would look up by its name alone.

/// Words that PostgreSQL's grammar takes care of, whatever schemas there are.
const GRAMMAR: [&str; 31] = [
    "select",
    "from",
    "where",
    "as",
    "case",
    "when",
    "then",
    "else",
    "end",
    "and",
    "or",
    "not",
    "is",
    "null",
    "coalesce",
    "order",
    "by",
    "any",
    "array",
    "true",
    "false",
    "current_user",
    "declare",
    "cursor",
    "for",
    "no",
    "scroll",
    "desc",
    "limit",
    "join",
    "on",
];

/// Statements that look up nothing but what they name themselves.
const PLAIN: [&str; 9] =
    ["set", "show", "begin", "commit", "rollback", "fetch", "close", "start", "alter"];

/// What is wrong with a statement, if anything.
pub fn unqualified(sql: &str) -> Vec<String> {
    let tokens = tokens(sql);
    let Some(first) = tokens.first() else { return Vec::new() };
    if PLAIN.contains(&first.as_str()) {
        return Vec::new();
    }
    if !["select", "declare"].contains(&first.as_str()) {
        return vec![format!("a statement of a new kind: {first}")];
    }
    let token = |at: usize| tokens.get(at).map_or("", String::as_str);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let (word, next) = (token(at), token(at + 1));
        if word == "operator" {
            // OPERATOR ( pg_catalog . symbol )
            if token(at + 2) != "pg_catalog" {
                found.push(format!("operator {}", token(at + 2)));
            }
            at += 6;
            continue;
        }
        if word == "pg_catalog" && next == "." {
            at += 3;
            continue;
        }
        let is_name = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if is_name && next == "(" && !GRAMMAR.contains(&word) {
            found.push(format!("function or syntax {word}"));
        }
        if matches!(word, "from" | "join") && !matches!(next, "pg_catalog" | "(") {
            found.push(format!("relation {next}"));
        }
        if word == "::" && next != "pg_catalog" {
            found.push(format!("type {next}"));
        }
        // These are operators in disguise, or functions.
        let disguised = ["in", "between", "like", "ilike", "similar", "distinct", "nullif"];
        if disguised.contains(&word) || (word == "case" && next != "when") {
            found.push(format!("syntax {word}"));
        }
        let is_operator = word.starts_with(|c: char| "+-*/<>=~!@#%^&|`?".contains(c));
        if is_operator && !(word == "*" && token(at.wrapping_sub(1)) == "select") {
            found.push(format!("operator {word}"));
        }
        at += 1;
    }
    found
}

/// Names in lower case, literals as `'`, symbols as they are.
fn tokens(sql: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = sql.trim();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' => quoted_length(rest),
            '"' => rest.get(1..).and_then(|rest| rest.find('"')).map_or(rest.len(), |at| at + 2),
            ':' if rest.starts_with("::") => 2,
            c if c.is_ascii_alphanumeric() || c == '_' => {
                rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len())
            }
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        match first {
            '\'' => tokens.push("'".to_owned()),
            c if c.is_whitespace() => {}
            _ => tokens.push(token.to_ascii_lowercase()),
        }
        rest = after;
    }
    tokens
}

/// Of a literal at the beginning; two quotes in it are one.
fn quoted_length(text: &str) -> usize {
    let mut at = 1;
    while let Some(end) = text.get(at..).and_then(|rest| rest.find('\'')) {
        at += end + 1;
        if !text.get(at..).is_some_and(|rest| rest.starts_with('\'')) {
            return at;
        }
        at += 1;
    }
    text.len()
}

#[test]
fn what_is_looked_up_by_its_name_alone_is_found() {
    for good in [
        "select 1",
        "SELECT CASE WHEN pg_catalog.f('it''s (a = b)') THEN pg_catalog.g() END",
        "select a::pg_catalog.text as b from pg_catalog.t where a OPERATOR(pg_catalog.=) any (array['x'])",
        "select * from pg_catalog.f(1, false)",
        "set statement_timeout = 0",
    ] {
        assert_eq!(unqualified(good), Vec::<String>::new(), "{good}");
    }
    for (bad, told) in [
        ("select f(1)", "function or syntax f"),
        ("select pg_catalog.f(g())", "function or syntax g"),
        ("select a from t", "relation t"),
        ("select 'a'::text", "type text"),
        ("select 1 from pg_catalog.t where a = 1", "operator ="),
        ("select 1 from pg_catalog.t where a in (1)", "syntax in"),
        ("select case a when 1 then 2 end", "syntax case"),
        ("select pg_catalog.f() - 1", "operator -"),
        ("select a OPERATOR(public.=) b", "operator public"),
        ("call x()", "a statement of a new kind: call"),
    ] {
        assert!(unqualified(bad).contains(&told.to_owned()), "{bad}: {:?}", unqualified(bad));
    }
}

//! Reads a request, and says what is wrong with one in words, none of which is a secret's.

use std::collections::BTreeSet;
use std::fmt;

use seawall_core::{Code, Error, Result};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::{JobRequest, VERSION};

/// A text that is shorter is no secret, and occurs in other words.
const SECRET_CHARS: usize = 4;

impl JobRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// [`Code::JobRequestInvalid`] for what is no request, or one of another version. No value of
    /// the request is in the error: any may be a secret in the wrong place.
    pub fn parse(json: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(json).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            invalid(format!("the request is not JSON, at line {line}, column {column}"))
        })?;
        match value.get("version").map(Value::as_u64) {
            Some(Some(version)) if version == u64::from(VERSION) => {}
            Some(Some(version)) => {
                return Err(invalid(format!("the request has version {version}"))
                    .with_hint(format!("This Seawall speaks version {VERSION}.")));
            }
            Some(None) | None => return Err(invalid("the request has no version".to_owned())),
        }
        let refused = |error| invalid(refusal(&error, &value));
        serde_json::from_str::<NoKeyTwice>(json).map_err(refused)?;
        serde_json::from_str(json).map_err(refused)
    }
}

fn invalid(what: String) -> Error {
    Error::new(Code::JobRequestInvalid, what).with_hint("docs/job.md has every field of a request.")
}

/// What is wrong, and where.
fn refusal(error: &serde_json::Error, request: &Value) -> String {
    let (line, column) = (error.line(), error.column());
    let whole = error.to_string();
    let message = whole.strip_suffix(&format!(" at line {line} column {column}"));
    let told = if error.is_syntax() {
        // It is JSON: what chooses one of several does not.
        "what belongs there is a text, or an object with one key".to_owned()
    } else {
        in_words(message.unwrap_or(&whole))
    };
    format!("{}, at line {line}, column {column}", without_values(&told, request))
}

/// What serde says, for people who know JSON and not Rust.
fn in_words(message: &str) -> String {
    let after = |prefix: &str| message.strip_prefix(prefix);
    // What was found may have anything in it, what was expected is the program's.
    if let Some((found, wanted)) =
        after("invalid type: ").and_then(|it| it.rsplit_once(", expected "))
    {
        return format!("{} is where {} belongs", kind(found), wanted_kind(wanted));
    }
    if let Some((found, wanted)) =
        after("invalid value: ").and_then(|it| it.rsplit_once(", expected "))
    {
        let (found, wanted) = (kind(found), wanted_kind(wanted));
        return format!("{found} that does not fit is where {wanted} belongs");
    }
    if let Some(field) = after("missing field ") {
        return format!("{field} is missing");
    }
    if let Some(field) = after("duplicate field ") {
        return format!("{field} is there twice");
    }
    match after("unknown field ").or_else(|| after("unknown variant ")) {
        Some(unknown) => match unknown.rsplit_once(", expected ") {
            Some((name, known)) => {
                let known = known.strip_prefix("one of ").unwrap_or(known);
                format!("{name} is unknown; known are {known}")
            }
            None => unknown.replace(", there are no fields", " is unknown: there are no fields"),
        },
        None => message.to_owned(),
    }
}

/// What serde found, without its value.
fn kind(found: &str) -> &'static str {
    match found.split(' ').next() {
        Some("string" | "character") => "a text",
        Some("map") => "an object",
        Some("sequence") => "a list",
        Some("integer" | "floating") => "a number",
        Some("boolean") => "true or false",
        Some("null") => "null",
        Some(_) | None => "something else",
    }
}

fn wanted_kind(wanted: &str) -> &str {
    match wanted {
        "a string" => "a text",
        "a map" | "map" => "an object",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "u8" | "u16" | "u32" | "u64" | "usize" | "i32" => "a number",
        "a nonzero usize" => "a number other than zero",
        other => other,
    }
}

/// A message in which no text of the request is left that may be a secret.
fn without_values(message: &str, value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() < SECRET_CHARS => message.to_owned(),
        Value::String(text) => {
            let quoted = format!("{text:?}");
            let quoted = quoted.get(1..quoted.len() - 1).unwrap_or(text);
            message.replace(quoted, "***").replace(text.as_str(), "***")
        }
        Value::Array(values) => {
            values.iter().fold(message.to_owned(), |told, value| without_values(&told, value))
        }
        Value::Object(fields) => {
            fields.values().fold(message.to_owned(), |told, value| without_values(&told, value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => message.to_owned(),
    }
}

/// JSON in which no object has a key twice: of two values, one would be passed over in silence.
struct NoKeyTwice;

impl<'de> Deserialize<'de> for NoKeyTwice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = NoKeyTwice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<NoKeyTwice, E> {
        Ok(NoKeyTwice)
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<NoKeyTwice, E> {
        Ok(NoKeyTwice)
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<NoKeyTwice, E> {
        Ok(NoKeyTwice)
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<NoKeyTwice, E> {
        Ok(NoKeyTwice)
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<NoKeyTwice, E> {
        Ok(NoKeyTwice)
    }

    fn visit_unit<E>(self) -> std::result::Result<NoKeyTwice, E> {
        Ok(NoKeyTwice)
    }

    fn visit_seq<A: SeqAccess<'de>>(
        self,
        mut values: A,
    ) -> std::result::Result<NoKeyTwice, A::Error> {
        while values.next_element::<NoKeyTwice>()?.is_some() {}
        Ok(NoKeyTwice)
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut fields: A,
    ) -> std::result::Result<NoKeyTwice, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some((key, NoKeyTwice)) = fields.next_entry::<String, NoKeyTwice>()? {
            if let Some(twice) = keys.replace(key) {
                return Err(A::Error::custom(format_args!("`{twice}` is there twice")));
            }
        }
        Ok(NoKeyTwice)
    }
}

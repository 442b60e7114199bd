//! A strict reading of TOML: every key is known, every value of its type, every error has its line.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use seawall_core::{Code, Error, Result};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The file being read.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    pub path: &'a Path,
    pub text: &'a str,
}

impl Document<'_> {
    /// An error at a place of the file.
    pub fn invalid(&self, span: Option<Range<usize>>, what: impl fmt::Display) -> Error {
        let before = span.and_then(|span| self.text.get(..span.start));
        let line = before.map(|text| 1 + text.matches('\n').count());
        let place = line.map_or_else(String::new, |line| format!(", line {line}"));
        Error::new(Code::ConfigInvalid, format!("{}{place}: {what}", self.path.display()))
    }
}

/// The keys a section may have.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// Those this version acts upon.
    pub known: &'static [&'static str],
    /// Those a later version will act upon.
    pub later: &'static [&'static str],
}

/// A table of the file.
#[derive(Debug, Clone)]
pub struct Section<'a> {
    document: Document<'a>,
    /// `[cluster.main]`, as messages show it; empty for the top level.
    name: String,
    table: &'a DeTable<'a>,
}

/// A key's value and where it stands.
type Value<'a> = &'a Spanned<DeValue<'a>>;

impl<'a> Section<'a> {
    /// The top level. Its keys must be among `keys`.
    pub fn top(document: Document<'a>, table: &'a DeTable<'a>, keys: Keys) -> Result<Self> {
        let section = Self { document, name: String::new(), table };
        section.refuse_unknown(keys)?;
        Ok(section)
    }

    /// Every `[KIND.NAME]` section and its name.
    pub fn named(&self, kind: &str, keys: Keys) -> Result<Vec<(String, Self)>> {
        let Some(value) = self.table.get(kind) else { return Ok(Vec::new()) };
        let outer = self.as_table(kind, value)?;
        outer
            .iter()
            .map(|(name, value)| {
                let label = format!("{kind}.{}", name.get_ref());
                let table = self.as_table(&label, value)?;
                let name_shown = format!(" in [{label}]");
                let section = Self { document: self.document, name: name_shown, table };
                section.refuse_unknown(keys)?;
                Ok((name.get_ref().to_string(), section))
            })
            .collect()
    }

    /// A table of one of `keys`, such as `{ file = "…" }`: the key and its text.
    pub fn choice(&self, key: &str, keys: Keys) -> Result<Option<(String, String)>> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let shape = || {
            let one_of: Vec<String> =
                keys.known.iter().map(|key| format!("{{ {key} = \"…\" }}")).collect();
            self.invalid(value, format!("{key} must be {}", one_of.join(" or ")))
        };
        let table = value.get_ref().as_table().ok_or_else(shape)?;
        let name = format!(" in {key}{}", self.name);
        let section = Self { document: self.document, name, table };
        section.refuse_unknown(keys)?;
        let mut found = keys.known.iter().filter(|key| table.contains_key(**key));
        match (found.next(), found.next()) {
            (Some(kind), None) => Ok(section.string(kind)?.map(|text| ((*kind).to_owned(), text))),
            _ => Err(shape()),
        }
    }

    /// Whether a key's value is a table.
    pub fn is_table(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| value.get_ref().is_table())
    }

    /// A table within the section. Its keys must be among `keys`.
    pub fn table(&self, key: &str, keys: Keys) -> Result<Option<Self>> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let wrong = || self.wrong_type(key, value, "a table");
        let table = value.get_ref().as_table().ok_or_else(wrong)?;
        let section =
            Self { document: self.document, name: format!(" in {key}{}", self.name), table };
        section.refuse_unknown(keys)?;
        Ok(Some(section))
    }

    /// A number of things.
    pub fn count(&self, key: &str) -> Result<Option<u32>> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let DeValue::Integer(number) = value.get_ref() else {
            return Err(self.wrong_type(key, value, "a whole number"));
        };
        let count = number.to_string().parse();
        count.map(Some).map_err(|_| self.wrong(key, "it must be a whole number from 0 up"))
    }

    /// A table of texts, such as `{ one = "…", two = "…" }`.
    pub fn texts(&self, key: &str, keys: Keys) -> Result<Vec<(String, String)>> {
        let Some(value) = self.table.get(key) else { return Ok(Vec::new()) };
        let wrong = || self.wrong_type(key, value, "a table of texts");
        let table = value.get_ref().as_table().ok_or_else(wrong)?;
        let name = format!(" in {key}{}", self.name);
        let section = Self { document: self.document, name, table };
        section.refuse_unknown(keys)?;
        let names = table.keys().map(|name| name.get_ref().as_ref());
        let text = |name: &str| Ok(section.string(name)?.map(|text| (name.to_owned(), text)));
        names.filter_map(|name| text(name).transpose()).collect()
    }

    /// A text.
    pub fn string(&self, key: &str) -> Result<Option<String>> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let text = value.get_ref().as_str().ok_or_else(|| self.wrong_type(key, value, "a text"))?;
        Ok(Some(text.to_owned()))
    }

    /// A text that means a `T`.
    pub fn parsed<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>> {
        let Some(text) = self.string(key)? else { return Ok(None) };
        parse(&text).map(Some).map_err(|problem| self.wrong(key, problem))
    }

    /// A text or a whole number, as text.
    pub fn string_or_integer(&self, key: &str) -> Result<Option<String>> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Integer(number) => Ok(Some(number.to_string())),
            DeValue::String(text) => Ok(Some(text.to_string())),
            _ => Err(self.wrong_type(key, value, "a number or a text")),
        }
    }

    /// A list of texts.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<String>>> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let wrong = || self.wrong_type(key, value, "a list of texts");
        let array = value.get_ref().as_array().ok_or_else(wrong)?;
        let texts = array.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
        texts.collect::<Option<Vec<_>>>().map(Some).ok_or_else(wrong)
    }

    /// An error about a key's value.
    pub fn wrong(&self, key: &str, problem: impl fmt::Display) -> Error {
        let span = self.table.get(key).map(Spanned::span);
        self.document.invalid(span, format!("{key}{}: {problem}", self.name))
    }

    /// An error about a key that is not there.
    pub fn missing(&self, key: &str) -> Error {
        let first = self.table.iter().map(|(key, _)| key.span()).min_by_key(|span| span.start);
        self.document.invalid(first, format!("{key} is missing{}", self.name))
    }

    fn invalid(&self, value: Value<'_>, what: String) -> Error {
        self.document.invalid(Some(value.span()), what)
    }

    fn wrong_type(&self, key: &str, value: Value<'_>, expected: &str) -> Error {
        let found = value.get_ref().type_str();
        self.invalid(value, format!("{key}{} must be {expected}, not {found}", self.name))
    }

    fn as_table(&self, name: &str, value: Value<'a>) -> Result<&'a DeTable<'a>> {
        let problem = || self.invalid(value, format!("{name} must be a section, [{name}]"));
        value.get_ref().as_table().ok_or_else(problem)
    }

    fn refuse_unknown(&self, keys: Keys) -> Result<()> {
        let mut unknown: Vec<_> =
            self.table.keys().filter(|key| !keys.known.contains(&key.get_ref().as_ref())).collect();
        unknown.sort_by_key(|key| key.span().start);
        let Some(key) = unknown.first() else { return Ok(()) };
        let name = key.get_ref().as_ref();
        let error = |what: &str| {
            self.document.invalid(Some(key.span()), format!("key \"{name}\"{} {what}", self.name))
        };
        if keys.later.contains(&name) {
            return Err(error("is not supported by this version")
                .with_hint("Remove the key: this version would not do what it asks for."));
        }
        Err(error("is unknown").with_hint(suggestion(name, keys.known)))
    }
}

/// "Did you mean", or all there is.
pub fn suggestion(word: &str, known: &[&str]) -> String {
    let near = known.iter().map(|known| (strsim::damerau_levenshtein(word, known), *known)).min();
    match near {
        Some((distance, nearest)) if distance <= 1 + word.chars().count() / 4 => {
            format!("Did you mean \"{nearest}\"?")
        }
        _ => {
            let all: BTreeSet<&str> = known.iter().copied().collect();
            let all: Vec<&str> = all.into_iter().collect();
            format!("Known here: {}.", all.join(", "))
        }
    }
}

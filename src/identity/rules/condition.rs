//! What a rule says of one claim.

use std::borrow::Cow;
use std::fmt::{self, Display as _};
use std::sync::Arc;

use serde_json::Value;

use super::Shown;
use super::glob::Glob;
use super::path::ClaimName;

/// A claim, and what must be true of it.
#[derive(Clone, Debug)]
pub struct Condition {
    pub(super) claim: Arc<ClaimName>,
    /// The index of the claim among those that the rules of the issuer look at.
    pub(super) slot: usize,
    pub(super) test: Test,
}

/// What must be true of a claim. Texts are compared octet by octet; a number or a truth value is the text that JSON has for
/// it; arrays and objects have none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Test {
    /// It is this text.
    Equals(String),
    /// It is one of these texts, which are sorted.
    In(Vec<String>),
    /// The pattern matches the whole of it.
    Glob(Glob),
    /// The regular expression matches the whole of it.
    Regex(Regex),
    /// It begins with this text.
    Prefix(String),
    /// It is an array with this text as an element, or a text that has it as one of its words.
    Contains(String),
    /// It is there, or it is not.
    Exists(bool),
    /// These are not all true.
    Not(Vec<Self>),
}

/// A regular expression with its text.
#[derive(Clone, Debug)]
pub(super) struct Regex {
    pub(super) written: String,
    pub(super) compiled: regex::Regex,
}

impl Eq for Regex {}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Condition {}

/// The same of the same claim, wherever else the rules look.
impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.claim.is_same(&other.claim) && self.test == other.test
    }
}

impl Condition {
    /// The claim that it is about.
    #[must_use]
    pub fn claim(&self) -> &ClaimName {
        &self.claim
    }

    /// Whether it holds, given what each claim is that the rules look at.
    pub(super) fn holds(&self, values: &[Option<&Value>]) -> bool {
        self.test.holds(values.get(self.slot).copied().flatten())
    }

    /// A condition for each of the values of a list, of which one must hold for this to hold.
    pub(super) fn by_value(&self) -> Option<Vec<Self>> {
        let Test::In(texts) = &self.test else {
            return None;
        };
        let with = |text: &String| Self {
            test: Test::Equals(text.clone()),
            ..self.clone()
        };
        Some(texts.iter().map(with).collect())
    }

    /// Whether this one holds wherever `other` does, as far as that can be seen.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.claim.is_same(&other.claim) && self.test.covers(&other.test)
    }
}

impl Test {
    fn holds(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Not(tests) => !tests.iter().all(|test| test.holds(value)),
            Self::Exists(wanted) => value.is_some() == *wanted,
            Self::Contains(word) => value.is_some_and(|value| contains(value, word)),
            Self::Equals(_) | Self::In(_) | Self::Glob(_) | Self::Regex(_) | Self::Prefix(_) => {
                value.and_then(text).is_some_and(|text| self.matches(&text))
            }
        }
    }

    /// Whether a claim that is this text passes.
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Equals(wanted) => wanted == text,
            Self::In(wanted) => wanted
                .binary_search_by(|known| known.as_str().cmp(text))
                .is_ok(),
            Self::Glob(glob) => glob.matches(text),
            Self::Regex(regex) => regex.compiled.is_match(text),
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Contains(word) => has_word(text, word),
            Self::Exists(wanted) => *wanted,
            Self::Not(tests) => !tests.iter().all(|test| test.matches(text)),
        }
    }

    /// Whether every claim that passes `other` passes this test too, as far as that can be seen.
    fn covers(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        match (self, other) {
            // Whoever passes has one of these texts, so that it can be tried. Some tests ask for more than a text.
            (Self::Contains(_), Self::Equals(_) | Self::In(_)) => false,
            (_, Self::Equals(text)) => self.matches(text),
            (_, Self::In(texts)) => texts.iter().all(|text| self.matches(text)),
            (
                Self::Exists(true),
                Self::Glob(_) | Self::Regex(_) | Self::Prefix(_) | Self::Contains(_),
            ) => true,
            (Self::Glob(wide), Self::Glob(narrow)) => wide.covers(narrow),
            (_, Self::Glob(glob)) => self.covers_prefix(glob.opening()),
            (_, Self::Prefix(prefix)) => self.covers_prefix(prefix),
            // The negation of less is more.
            (Self::Not(these), Self::Not(others)) => others
                .iter()
                .all(|other| these.iter().any(|this| other.covers(this))),
            (
                Self::Equals(_)
                | Self::In(_)
                | Self::Glob(_)
                | Self::Regex(_)
                | Self::Prefix(_)
                | Self::Contains(_)
                | Self::Exists(_)
                | Self::Not(_),
                Self::Regex(_) | Self::Contains(_) | Self::Exists(_) | Self::Not(_),
            ) => false,
        }
    }

    /// Whether every text that begins so passes.
    fn covers_prefix(&self, opening: &str) -> bool {
        let wanted = match self {
            Self::Prefix(prefix) => Some(prefix.as_str()),
            Self::Glob(glob) => glob.as_prefix(),
            Self::Equals(_)
            | Self::In(_)
            | Self::Regex(_)
            | Self::Contains(_)
            | Self::Exists(_)
            | Self::Not(_) => None,
        };
        wanted.is_some_and(|wanted| opening.starts_with(wanted))
    }

    /// Writes what must be true, or what must not.
    fn write(&self, f: &mut fmt::Formatter<'_>, is_wanted: bool) -> fmt::Result {
        let choose = |wanted, unwanted| if is_wanted { wanted } else { unwanted };
        let (words, text) = match self {
            Self::Equals(text) => (choose("is", "is not"), text.as_str()),
            Self::Glob(glob) => (
                choose("matches the glob", "does not match the glob"),
                glob.as_str(),
            ),
            Self::Regex(regex) => (
                choose("matches the regex", "does not match the regex"),
                regex.written.as_str(),
            ),
            Self::Prefix(text) => (choose("begins with", "does not begin with"), text.as_str()),
            Self::Contains(text) => (choose("contains", "does not contain"), text.as_str()),
            Self::In(texts) => {
                f.write_str(choose("is one of ", "is none of "))?;
                return write_texts(f, texts);
            }
            Self::Exists(exists) => {
                let is_there = *exists == is_wanted;
                return f.write_str(if is_there { "is there" } else { "is not there" });
            }
            // One level only: the reader of rules sees to that.
            Self::Not(tests) => match &tests[..] {
                [test] => return test.write(f, !is_wanted),
                tests => {
                    f.write_str(choose("does not do all of: ", "does all of: "))?;
                    for (index, test) in tests.iter().enumerate() {
                        f.write_str(if index == 0 { "" } else { ", " })?;
                        test.write(f, true)?;
                    }
                    return Ok(());
                }
            },
        };
        write!(f, "{words} ")?;
        Shown(text).fmt(f)
    }
}

impl fmt::Display for Condition {
    /// As a statement about the claim. Values of the identity file are cut where they are long, unless `#` asks for all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.claim)?;
        self.test.write(f, true)
    }
}

/// A few of the texts, and how many more there are; with `#` all of them.
fn write_texts(f: &mut fmt::Formatter<'_>, texts: &[String]) -> fmt::Result {
    const MOST: usize = 5;
    let most = if f.alternate() { usize::MAX } else { MOST };
    for (index, text) in texts.iter().take(most).enumerate() {
        f.write_str(if index == 0 { "" } else { ", " })?;
        Shown(text).fmt(f)?;
    }
    match texts.len().saturating_sub(most) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

/// The text of a claim; nothing for arrays and objects.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Bool(true) => Some("true".into()),
        Value::Bool(false) => Some("false".into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn contains(value: &Value, word: &str) -> bool {
    match value {
        Value::Array(elements) => elements
            .iter()
            .any(|element| text(element).is_some_and(|text| text == word)),
        Value::String(text) => has_word(text, word),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

/// Whether a text, such as a list of scopes (RFC 6749, section 3.3), has a word between its spaces.
fn has_word(text: &str, word: &str) -> bool {
    text.split(' ').any(|found| found == word)
}

//! Where a claim stands.

use std::fmt;

use serde_json::Value;

use super::super::json::Object;
use crate::excerpt::is_invisible;

/// The longest name, as it is written, in octets.
const MAX_OCTETS: usize = 256;

/// The name of a claim, or a path to one inside others.
///
/// A path is `$` and then, for each level, `.name` or `['any name']`: what RFC 9535 calls child segments with names, and
/// nothing else of it. `$.a.b` is the member `b` of the claim `a`; `$['kubernetes.io'].namespace` reaches into a claim whose
/// own name has a dot.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ClaimName {
    written: String,
    outer: String,
    inner: Vec<String>,
}

/// A text is neither the name of a claim nor a path to one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing is there.
    #[error("the name of a claim is empty")]
    Empty,
    /// It is longer than 256 octets.
    #[error("the name of a claim is longer than 256 octets")]
    TooLong,
    /// It has characters that cannot be seen.
    #[error(
        "the name of a claim has control characters or marks that change the direction of text"
    )]
    Invisible,
    /// It begins like a path and is none.
    #[error("a path to a claim is $ and then .name or ['name'] for each level")]
    Path,
}

impl ClaimName {
    /// Reads a name or a path.
    ///
    /// # Errors
    /// When it is neither; see [`InvalidName`].
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if text.len() > MAX_OCTETS {
            return Err(InvalidName::TooLong);
        }
        if text.chars().any(is_invisible) {
            return Err(InvalidName::Invisible);
        }
        let mut names = match text.strip_prefix('$') {
            Some(path) => segments(path).ok_or(InvalidName::Path)?.into_iter(),
            None => vec![text.to_owned()].into_iter(),
        };
        Ok(Self {
            written: text.to_owned(),
            outer: names.next().ok_or(InvalidName::Path)?,
            inner: names.collect(),
        })
    }

    /// The claim, if the token has it. One that is null counts as missing.
    #[must_use]
    pub fn find<'a>(&self, claims: &'a Object) -> Option<&'a Value> {
        let outer = claims.get(&self.outer);
        let value = self
            .inner
            .iter()
            .fold(outer, |value, name| value?.get(name));
        value.filter(|value| !value.is_null())
    }

    /// Whether both stand for the same claim.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.outer == other.outer && self.inner == other.inner
    }

    /// The name of the claim, or of the one that it lies in.
    #[must_use]
    pub fn outer(&self) -> &str {
        &self.outer
    }
}

impl fmt::Display for ClaimName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.written)
    }
}

/// The names of a path behind its `$`; nothing if it is no path.
fn segments(path: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let (name, tail) = if let Some(quoted) = rest.strip_prefix("['") {
            quoted.split_once("']")?
        } else {
            let plain = rest.strip_prefix('.')?;
            let end = plain.find(['.', '[']).unwrap_or(plain.len());
            let (name, tail) = plain.split_at_checked(end)?;
            let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"_-:/".contains(&octet);
            if !name.bytes().all(is_plain) {
                return None;
            }
            (name, tail)
        };
        if name.is_empty() || name.contains(['\'', '\\']) {
            return None;
        }
        names.push(name.to_owned());
        rest = tail;
    }
    Some(names)
}

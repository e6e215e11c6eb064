//! Pieces of what came from outside, as they may be shown to its sender and written to a log.

use std::fmt::{self, Write as _};

/// The most characters of a claim that are shown.
const MAX_CHARACTERS: usize = 256;

/// A value that came from outside, fit to be shown: in quotes, at most 256 characters, with everything that could move a
/// cursor, break a line or reorder text written as `\uXXXX`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Excerpt(String);

impl Excerpt {
    /// Cuts and escapes `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut shown = String::from('"');
        let mut characters = text.chars();
        for character in characters.by_ref().take(MAX_CHARACTERS) {
            match character {
                '"' | '\\' => shown.extend(['\\', character]),
                character => put_visible(&mut shown, character),
            }
        }
        shown.push_str(if characters.next().is_some() {
            "…\""
        } else {
            "\""
        });
        Self(shown)
    }

    /// The same without its quotes, for places that have quotes of their own.
    #[must_use]
    pub fn unquoted(&self) -> &str {
        let inner = self.0.strip_prefix('"').unwrap_or(&self.0);
        inner.strip_suffix('"').unwrap_or(inner)
    }
}

impl From<&str> for Excerpt {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text as it may be shown: whole, and what [`is_invisible`] written as `\uXXXX`.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        put_visible(&mut shown, character);
    }
    shown
}

fn put_visible(shown: &mut String, character: char) {
    if is_invisible(character) {
        // Writing to a `String` does not fail.
        let _ = write!(shown, "\\u{:04x}", u32::from(character));
    } else {
        shown.push(character);
    }
}

/// Whether a character has no place in an identity: C0 and C1 controls, line and paragraph separators, and the marks
/// that change the direction of text (Unicode Standard Annex 9).
#[must_use]
pub const fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_are_quoted_cut_and_escaped() {
        for (text, shown) in [
            ("alice", r#""alice""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("a\r\nb\u{1b}[31m", r#""a\u000d\u000ab\u001b[31m""#),
            (
                "\u{85}\u{202e}\u{2069}\u{2028}",
                r#""\u0085\u202e\u2069\u2028""#,
            ),
        ] {
            assert_eq!(Excerpt::new(text).to_string(), shown);
            assert_eq!(format!("\"{}\"", Excerpt::new(text).unquoted()), shown);
        }
        let exact = "é".repeat(256);
        assert_eq!(Excerpt::new(&exact).to_string(), format!("\"{exact}\""));
        assert_eq!(
            Excerpt::new(&"é".repeat(257)).to_string(),
            format!("\"{exact}…\"")
        );
    }
}

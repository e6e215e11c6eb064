//! The texts of certificates that an admin writes as templates: a part of Go's `text/template`, with its output.
//!
//! A template is read once, with the identity file, into steps that only go forwards; what comes of a token's claims takes
//! time in proportion to the template and its output, and the output has a bound. The part of the language is what describes
//! an identity: fields, `index`, `if`, comparisons. What loops, calls or formats is refused where it stands.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::json::Object;
use crate::excerpt::Excerpt;

mod syntax;

pub use syntax::TemplateSyntaxError;

/// The longest output of a template, in octets.
pub const MAX_OUTPUT_OCTETS: usize = 8 * 1024;

/// A text made of claims and defaults: either the name of one of them, or a text with actions in `{{ }}`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template {
    text: Box<str>,
    kind: Kind,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Kind {
    /// A text without `{{`, which is the name of a value, as Fulcio has it.
    Name,
    Steps(Vec<Step>),
}

/// One step of a template. Steps follow one another, and those that jump do so forwards: each is taken at most once.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Step {
    /// Writes this text.
    Text(Box<str>),
    /// Writes what the expression comes to.
    Print(Expression),
    /// Goes on at step `otherwise` unless the condition holds.
    Unless {
        condition: Expression,
        otherwise: usize,
    },
    /// Goes on at this step.
    Goto(usize),
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Expression {
    /// A string literal.
    Text(Box<str>),
    /// `.name`: a value that must be there; and where it stands.
    Field { name: Box<str>, place: Place },
    /// `index . "name"`: a value, or the empty text.
    Index(Box<str>),
    /// A function of at least one argument.
    Call {
        function: Function,
        first: Box<Self>,
        rest: Vec<Self>,
    },
}

/// The functions beside `index`, named as in Go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Function {
    And,
    Eq,
    Ne,
    Not,
    Or,
}

/// A line from 1, and a column in octets from 0, as Go counts them in its messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    line: usize,
    column: usize,
}

/// Why a template came to nothing. The texts begin as Fulcio's, and name claims without what they say.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TemplateError {
    /// A value that an action needs is neither a claim nor a default.
    #[error(
        "template: :{}:{}: executing \"\" at <.{name}>: map has no entry for key \"{name}\"",
        place.line,
        place.column
    )]
    NoEntry {
        /// The name of the value.
        name: Box<str>,
        /// Where in the template it stands.
        place: Place,
    },
    /// The value that the template is the name of is neither a claim nor a default.
    #[error(
        "value <{}> not present in either claims or defaults",
        Excerpt::new(name).unquoted()
    )]
    NotPresent {
        /// The name of the value.
        name: Box<str>,
    },
    /// A claim is there, and is no text, whole number or boolean.
    #[error(
        "the claim `{}` is {found}, expected a string, a whole number or a boolean",
        Excerpt::new(name).unquoted()
    )]
    NotText {
        /// The name of the claim.
        name: Box<str>,
        /// What it is.
        found: &'static str,
    },
    /// `eq` or `ne` of a text and a truth value. The last part is Go's.
    #[error("error calling {0}: incompatible types for comparison")]
    Incomparable(&'static str),
    /// The output is longer than [`MAX_OUTPUT_OCTETS`].
    #[error("the output is longer than {MAX_OUTPUT_OCTETS} octets")]
    TooLong,
}

/// What templates are made of: the claims of a token, and the values that stand in for those it does not have.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    claims: &'a Object,
    defaults: &'a BTreeMap<String, String>,
}

impl<'a> Values<'a> {
    /// Claims, and defaults for those that are missing.
    #[must_use]
    pub const fn new(claims: &'a Object, defaults: &'a BTreeMap<String, String>) -> Self {
        Self { claims, defaults }
    }

    /// The text of a value, if it is there.
    pub(super) fn get(&self, name: &str) -> Result<Option<Cow<'a, str>>, TemplateError> {
        let not_text = |found| TemplateError::NotText {
            name: name.into(),
            found,
        };
        let text = match self.claims.get(name) {
            Some(Value::String(text)) => Cow::Borrowed(text.as_str()),
            Some(Value::Bool(true)) => Cow::Borrowed("true"),
            Some(Value::Bool(false)) => Cow::Borrowed("false"),
            Some(Value::Number(number)) => Cow::Owned(match number.as_f64() {
                _ if number.is_u64() || number.is_i64() => number.to_string(),
                // The digits in full, where JSON would have an exponent.
                Some(float) if float.trunc() == float => float.to_string(),
                Some(_) | None => return Err(not_text("a fraction")),
            }),
            Some(Value::Null) => return Err(not_text("null")),
            Some(Value::Array(_)) => return Err(not_text("an array")),
            Some(Value::Object(_)) => return Err(not_text("an object")),
            None => return Ok(self.defaults.get(name).map(|text| text.as_str().into())),
        };
        Ok(Some(text))
    }
}

/// What an expression comes to.
enum Outcome<'a> {
    Text(Cow<'a, str>),
    Truth(bool),
}

impl Outcome<'_> {
    /// Whether a condition holds: the empty text is false.
    fn holds(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Truth(truth) => *truth,
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Truth(true) => "true",
            Self::Truth(false) => "false",
        }
    }

    fn equals(&self, other: &Self, function: Function) -> Result<bool, TemplateError> {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => Ok(one == other),
            (Self::Truth(one), Self::Truth(other)) => Ok(one == other),
            (Self::Text(_), Self::Truth(_)) | (Self::Truth(_), Self::Text(_)) => {
                Err(TemplateError::Incomparable(function.name()))
            }
        }
    }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When Go would refuse it, or it goes beyond the part of the language that is understood here.
    pub fn parse(text: &str) -> Result<Self, TemplateSyntaxError> {
        let kind = if text.contains("{{") {
            Kind::Steps(syntax::parse(text)?)
        } else {
            Kind::Name
        };
        Ok(Self {
            text: text.into(),
            kind,
        })
    }

    /// The template as it was written.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.text
    }

    /// What the template comes to with these values.
    ///
    /// # Errors
    /// When a value is missing or no text, or the output is too long.
    pub fn render(&self, values: Values<'_>) -> Result<String, TemplateError> {
        let mut output = String::new();
        let steps = match &self.kind {
            Kind::Steps(steps) => steps,
            Kind::Name => {
                let name = &self.text;
                let not_present = || TemplateError::NotPresent { name: name.clone() };
                write(&mut output, &values.get(name)?.ok_or_else(not_present)?)?;
                return Ok(output);
            }
        };
        let mut next = 0;
        while let Some(step) = steps.get(next) {
            next += 1;
            match step {
                Step::Text(text) => write(&mut output, text)?,
                Step::Print(expression) => {
                    write(&mut output, expression.evaluate(values)?.as_str())?;
                }
                Step::Unless {
                    condition,
                    otherwise,
                } => {
                    if !condition.evaluate(values)?.holds() {
                        next = *otherwise;
                    }
                }
                Step::Goto(step) => next = *step,
            }
        }
        Ok(output)
    }

    /// The names of the values that the template looks at, in its order; a name may come again.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        match &self.kind {
            Kind::Name => names.push(self.as_str()),
            Kind::Steps(steps) => {
                let expressions = steps.iter().filter_map(Step::expression);
                expressions.for_each(|expression| expression.names(&mut names));
            }
        }
        names
    }

    /// What the template's own author lets the output begin with: its first text, or the default of its first value.
    #[must_use]
    pub fn opening<'a>(&'a self, defaults: &'a BTreeMap<String, String>) -> &'a str {
        let first = match &self.kind {
            Kind::Name => defaults.get(self.as_str()),
            Kind::Steps(steps) => match steps.first() {
                Some(Step::Text(text)) => return text,
                Some(Step::Print(Expression::Field { name, .. } | Expression::Index(name))) => {
                    defaults.get(&**name)
                }
                Some(_) | None => None,
            },
        };
        first.map_or("", String::as_str)
    }
}

impl Step {
    const fn expression(&self) -> Option<&Expression> {
        match self {
            Self::Print(expression)
            | Self::Unless {
                condition: expression,
                ..
            } => Some(expression),
            Self::Text(_) | Self::Goto(_) => None,
        }
    }
}

/// Appends to the output, within its bound.
fn write(output: &mut String, text: &str) -> Result<(), TemplateError> {
    if output.len() + text.len() > MAX_OUTPUT_OCTETS {
        return Err(TemplateError::TooLong);
    }
    output.push_str(text);
    Ok(())
}

impl Expression {
    /// Evaluates as Go does: `and` and `or` stop at the argument that decides, and give it back.
    fn evaluate<'a>(&'a self, values: Values<'a>) -> Result<Outcome<'a>, TemplateError> {
        let (function, first, rest) = match self {
            Self::Text(text) => return Ok(Outcome::Text(Cow::Borrowed(text))),
            Self::Field { name, place } => {
                let no_entry = || TemplateError::NoEntry {
                    name: name.clone(),
                    place: *place,
                };
                return Ok(Outcome::Text(values.get(name)?.ok_or_else(no_entry)?));
            }
            Self::Index(name) => {
                return Ok(Outcome::Text(values.get(name)?.unwrap_or_default()));
            }
            Self::Call {
                function,
                first,
                rest,
            } => (*function, first.evaluate(values)?, rest),
        };
        match function {
            Function::Not => Ok(Outcome::Truth(!first.holds())),
            Function::And | Function::Or => {
                let decides = function == Function::Or;
                let mut last = first;
                for argument in rest {
                    if last.holds() == decides {
                        break;
                    }
                    last = argument.evaluate(values)?;
                }
                Ok(last)
            }
            Function::Eq | Function::Ne => {
                // All are evaluated before any is compared, so that a missing value is an error wherever it stands.
                let rest: Vec<_> = rest
                    .iter()
                    .map(|argument| argument.evaluate(values))
                    .collect::<Result<_, _>>()?;
                for other in &rest {
                    if first.equals(other, function)? {
                        return Ok(Outcome::Truth(function == Function::Eq));
                    }
                }
                Ok(Outcome::Truth(function == Function::Ne))
            }
        }
    }

    fn names<'a>(&'a self, names: &mut Vec<&'a str>) {
        match self {
            Self::Text(_) => {}
            Self::Field { name, .. } | Self::Index(name) => names.push(name),
            Self::Call { first, rest, .. } => {
                first.names(names);
                rest.iter().for_each(|argument| argument.names(names));
            }
        }
    }
}

impl Function {
    const ALL: [Self; 5] = [Self::And, Self::Eq, Self::Ne, Self::Not, Self::Or];

    const fn name(self) -> &'static str {
        match self {
            Self::And => "and",
            Self::Eq => "eq",
            Self::Ne => "ne",
            Self::Not => "not",
            Self::Or => "or",
        }
    }

    /// Whether the function takes so many arguments.
    const fn takes(self, arguments: usize) -> bool {
        match self {
            Self::And | Self::Or => arguments >= 1,
            Self::Eq => arguments >= 2,
            Self::Ne => arguments == 2,
            Self::Not => arguments == 1,
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    /// What Go makes of a template; see `tests/vectors/README.md`.
    #[derive(Deserialize)]
    struct Vector {
        template: String,
        #[serde(default)]
        refused: bool,
        #[serde(default)]
        beyond: bool,
        output: Option<String>,
        error: Option<String>,
    }

    #[derive(Deserialize)]
    struct Vectors {
        values: Object,
        vectors: Vec<Vector>,
        soups: Vec<Vector>,
    }

    fn vectors() -> Vectors {
        serde_json::from_str(include_str!("../../tests/vectors/templates/vectors.json")).unwrap()
    }

    /// Checks that a template that was accepted does what Go has it do.
    fn check(template: &Template, values: &Object, vector: &Vector) {
        let text = &vector.template;
        let defaults = BTreeMap::new();
        assert!(!vector.refused, "Go refuses {text:?}");
        match template.render(Values::new(values, &defaults)) {
            Ok(output) => assert_eq!(Some(output), vector.output, "{text:?}"),
            Err(error) => {
                let expected = vector.error.as_ref().unwrap_or_else(|| panic!("{text:?}"));
                let error = error.to_string();
                assert!(expected.contains(&error), "{text:?}: {error}: {expected}");
            }
        }
    }

    #[test]
    fn templates_come_to_what_go_makes_of_them() {
        let Vectors {
            values, vectors, ..
        } = vectors();
        let is_template = |vector: &&Vector| vector.template.contains("{{");
        let mut wrongly_refused = Vec::new();
        for vector in vectors.iter().filter(is_template) {
            match Template::parse(&vector.template) {
                Ok(template) => {
                    assert!(!vector.beyond, "{:?}", vector.template);
                    check(&template, &values, vector);
                }
                Err(error) => {
                    assert!(vector.template.is_char_boundary(error.offset), "{error:?}");
                    if !vector.refused && !vector.beyond {
                        wrongly_refused.push((&vector.template, error));
                    }
                }
            }
        }
        assert!(wrongly_refused.is_empty(), "{wrongly_refused:#?}");
    }

    #[test]
    fn whatever_is_accepted_means_what_it_means_to_go() {
        let Vectors { values, soups, .. } = vectors();
        let mut accepted = 0;
        for vector in &soups {
            if let Ok(template) = Template::parse(&vector.template) {
                check(&template, &values, vector);
                accepted += 1;
            }
        }
        assert!(accepted > 0);
    }

    /// Renders with these claims, and two defaults.
    fn render(text: &str, claims: &Value) -> Result<String, String> {
        let claims = super::super::json::parse_object(claims.to_string().as_bytes(), 8).unwrap();
        let default = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let defaults = BTreeMap::from([
            default("environment", ""),
            default("url", "https://example.com"),
        ]);
        let template = Template::parse(text).unwrap();
        let output = template.render(Values::new(&claims, &defaults));
        output.map_err(|error| error.to_string())
    }

    #[test]
    fn a_text_without_braces_is_the_name_of_a_value() {
        let claims = json!({ "event_name": "push", " spaced": "x", "": "nameless" });
        let render = |text| render(text, &claims);
        assert_eq!(render("event_name").as_deref(), Ok("push"));
        assert_eq!(render(" spaced").as_deref(), Ok("x"));
        assert_eq!(render("environment").as_deref(), Ok(""));
        assert_eq!(
            render("hosted").unwrap_err(),
            "value <hosted> not present in either claims or defaults"
        );
        assert_eq!(
            Template::parse("event_name").unwrap().names(),
            ["event_name"]
        );
    }

    #[test]
    fn claims_come_before_defaults() {
        let text = "{{ .url }}/{{ .environment }}";
        let claims = json!({ "url": "https://build.example", "environment": "production" });
        assert_eq!(
            render(text, &claims).as_deref(),
            Ok("https://build.example/production")
        );
        assert_eq!(
            render(text, &json!({})).as_deref(),
            Ok("https://example.com/")
        );
    }

    #[test]
    fn numbers_are_whole_and_written_in_full() {
        for (text, output) in [
            ("4711", Ok("4711")),
            ("-1", Ok("-1")),
            ("0", Ok("0")),
            ("12345678901234567890", Ok("12345678901234567890")),
            ("-9223372036854775808", Ok("-9223372036854775808")),
            ("1e21", Ok("1000000000000000000000")),
            ("1E3", Ok("1000")),
            ("1.0", Ok("1")),
            ("true", Ok("true")),
            ("false", Ok("false")),
            ("0.1", Err("a fraction")),
            ("-1e-9", Err("a fraction")),
            ("null", Err("null")),
            ("{}", Err("an object")),
            ("[\"a\"]", Err("an array")),
        ] {
            let claims = super::super::json::parse_object(
                format!("{{\"id\":{text},\"environment\":{text}}}").as_bytes(),
                8,
            )
            .unwrap();
            for template in ["{{ .id }}", "id", "{{ index . \"id\" }}", "environment"] {
                let rendered = render(template, &Value::Object(claims.clone()));
                match output {
                    Ok(output) => assert_eq!(rendered.as_deref(), Ok(output), "{template}"),
                    Err(found) => {
                        let error = rendered.unwrap_err();
                        let expected =
                            format!("is {found}, expected a string, a whole number or a boolean");
                        assert!(error.ends_with(&expected), "{text}: {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_output_has_a_bound() {
        let claims = json!({ "half": "x".repeat(MAX_OUTPUT_OCTETS / 2), "whole": "x".repeat(MAX_OUTPUT_OCTETS) });
        let length = |text| render(text, &claims).map(|output| output.len());
        let error = Err("the output is longer than 8192 octets".to_owned());
        assert_eq!(length("{{ .half }}{{ .half }}"), Ok(MAX_OUTPUT_OCTETS));
        assert_eq!(length("{{ .half }}{{ .half }} "), error);
        assert_eq!(length("whole"), Ok(MAX_OUTPUT_OCTETS));
        assert_eq!(length(&"{{ .whole }}".repeat(600)), error);
    }

    #[test]
    fn what_is_not_understood_is_refused_where_it_stands() {
        for (text, offset, message) in [
            ("{{ range . }}{{ end }}", 3, "`range` is not supported"),
            (
                "x {{ printf \"%1000000d\" 1 }}",
                5,
                "function \"printf\" is not supported; expected and, eq, index, ne, not, or",
            ),
            (
                "ü{{ .a | html }}",
                8,
                "found \"|\", expected the end of the action",
            ),
            ("{{ .a }}{{ $x }}", 11, "found \"$\", expected a field"),
            ("{{ if .a }}", 3, "this `if` has no {{ end }}"),
            ("{{ .a }}{{ end }}", 11, "`end` without an `if`"),
            ("{{ else }}", 3, "`else` without an `if`"),
            (
                "{{ .repository-id }}",
                3,
                "expected the name of a value after the dot",
            ),
            ("{{ . }}", 3, "expected the name of a value after the dot"),
            (
                "{{ index .a 0 }}",
                3,
                "`index` is understood only as index . \"name\"",
            ),
            ("{{ eq .a }}", 3, "wrong number of arguments for `eq`: 1"),
            ("{{ eq (.a }}", 10, "found \"}\", expected `)`"),
            ("{{ \"a }}", 3, "the string has no end"),
            (
                "{{ \"a\\q\" }}",
                5,
                "this is no escape sequence of Go strings",
            ),
            ("{{ .a", 5, "found the end of the template"),
            ("{{/* a }}", 2, "the comment has no end"),
            ("{{ 4711 }}", 3, "found \"4\", expected a field"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert_eq!(error.offset, offset, "{text}: {error}");
            assert!(error.message.starts_with(message), "{text}: {error}");
        }
        let long = format!("{{{{ .a }}}}{}", "x".repeat(8 * 1024));
        assert_eq!(
            Template::parse(&long).unwrap_err().message,
            "the template is longer than 8192 octets"
        );
    }

    #[test]
    fn a_template_names_what_it_looks_at() {
        let text = "{{ if eq .a (index . \"b/c\") }}{{ .d }}{{ else }}{{ or .e \"f\" }}{{ end }}";
        let template = Template::parse(text).unwrap();
        assert_eq!(template.names(), ["a", "b/c", "d", "e"]);
    }
}

//! Rules as they are written, and what is made of them.
//!
//! Values are read as YAML and JSON tell them, and then compared as texts: `74` is the text `74`, `True` is `true`. A number
//! with a fraction or an exponent has no single text, and is refused where it is not in quotes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::condition::{Condition, Regex, Test};
use super::glob::Glob;
use super::path::ClaimName;
use super::{ClaimRules, Rule, RuleList};

/// The longest pattern of a regular expression or glob, in octets.
const MAX_PATTERN_OCTETS: usize = 1024;
/// How much memory a regular expression may take, in octets.
const MAX_COMPILED_OCTETS: usize = 1024 * 1024;

const OPERATORS: &str = "expected one of equals, in, glob, regex, exists, contains, prefix, not";

/// The value of `allow` or `deny`, each part of it with its place.
#[derive(Clone, Debug)]
pub struct RawRules(Spanned<Node>);

impl<'de> Deserialize<'de> for RawRules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl RawRules {
    /// The claims that the rules look at, as they are written: each with its place, and the number of its rule from 0.
    pub fn claims(&self) -> impl Iterator<Item = (&str, Location, usize)> {
        let rules = match &self.0.value {
            Node::List(rules) => rules.as_slice(),
            Node::Null | Node::Scalar(_) | Node::Fraction | Node::Map(_) => &[],
        };
        rules.iter().enumerate().flat_map(|(index, rule)| {
            let conditions = match &rule.value {
                Node::Map(conditions) => conditions.as_slice(),
                Node::Null | Node::Scalar(_) | Node::Fraction | Node::List(_) => &[],
            };
            let names = conditions.iter().map(|(name, _)| name);
            names.map(move |name| (name.value.as_str(), name.referenced, index))
        })
    }
}

/// Something that is wrong with a rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuleMistake {
    /// Where it stands in the text that the rules were read from.
    pub location: Location,
    /// The same as a path of keys and indexes below the issuer's entry.
    pub path: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<&'static str>,
}

/// A value of any kind.
#[derive(Clone, Debug)]
enum Node {
    Null,
    /// A text, or what has one text only.
    Scalar(String),
    /// A number that could be written in several ways.
    Fraction,
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Node {
    /// Recurses; how deep a text may nest is limited by whoever reads it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NodeVisitor;

        impl<'de> Visitor<'de> for NodeVisitor {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Scalar(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Scalar(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Scalar(value.to_string()))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Fraction)
            }

            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Scalar(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = elements.next_element()? {
                    list.push(element);
                }
                Ok(Node::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
                let mut map = Vec::new();
                while let Some(key) = members.next_key()? {
                    map.push((key, members.next_value()?));
                }
                Ok(Node::Map(map))
            }
        }

        deserializer.deserialize_any(NodeVisitor)
    }
}

impl ClaimRules {
    /// Reads the rules of an issuer. A list that is missing says nothing.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the text.
    pub fn new(
        allow: Option<&RawRules>,
        deny: Option<&RawRules>,
    ) -> Result<Self, Vec<RuleMistake>> {
        let mut reader = Reader::default();
        let rules = Self {
            allow: reader.rules("allow", allow),
            deny: reader.rules("deny", deny),
            claims: reader.claims,
        };
        if reader.mistakes.is_empty() {
            Ok(rules)
        } else {
            Err(reader.mistakes)
        }
    }
}

/// Makes rules of values and remembers what is wrong with them.
#[derive(Default)]
struct Reader {
    claims: Vec<Arc<ClaimName>>,
    /// The index of each claim.
    slots: BTreeMap<ClaimName, usize>,
    /// Where the reader stands.
    path: Vec<String>,
    mistakes: Vec<RuleMistake>,
}

impl Reader {
    fn mistake<T>(
        &mut self,
        at: &Spanned<T>,
        message: impl Into<String>,
        help: impl Into<Option<&'static str>>,
    ) {
        self.mistakes.push(RuleMistake {
            location: at.referenced,
            path: self.path.clone(),
            message: message.into(),
            help: help.into(),
        });
    }

    /// Reads something one level below.
    fn below<T>(&mut self, name: impl ToString, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(name.to_string());
        let value = read(self);
        self.path.pop();
        value
    }

    fn rules(&mut self, list: &str, raw: Option<&RawRules>) -> Vec<Rule> {
        self.below(list, |reader| match raw.map(|raw| (&raw.0, &raw.0.value)) {
            None | Some((_, Node::Null)) => Vec::new(),
            // One would think that an empty list lets nobody through.
            Some((at, Node::List(rules))) if rules.is_empty() && list == RuleList::Allow.name() => {
                let help = "leave allow out if every token of the issuer may have a certificate; with `disabled: true` none may";
                reader.mistake(at, "allow is empty, and would allow every token", help);
                Vec::new()
            }
            Some((_, Node::List(rules))) => rules
                .iter()
                .enumerate()
                .filter_map(|(index, rule)| reader.below(index, |reader| reader.rule(rule)))
                .collect(),
            Some((at, Node::Scalar(_) | Node::Fraction | Node::Map(_))) => {
                let help = "write a - before each rule; a rule is a mapping from claims to what they must be";
                reader.mistake(at, format!("{list} is not a list of rules"), help);
                Vec::new()
            }
        })
    }

    fn rule(&mut self, raw: &Spanned<Node>) -> Option<Rule> {
        let help = "a rule is a mapping from claims to what they must be, such as `- ref: { glob: \"refs/tags/*\" }`";
        let conditions = match &raw.value {
            Node::Map(conditions) if !conditions.is_empty() => conditions,
            Node::Map(_) | Node::Null => {
                self.mistake(
                    raw,
                    "the rule is empty, and would apply to every token",
                    help,
                );
                return None;
            }
            Node::Scalar(_) | Node::Fraction | Node::List(_) => {
                self.mistake(raw, "the rule is not a mapping", help);
                return None;
            }
        };
        let mut read = Vec::with_capacity(conditions.len());
        for (name, value) in conditions {
            self.below(&name.value, |reader| {
                reader.conditions(name, value, &mut read)
            });
        }
        Some(Rule { conditions: read })
    }

    /// Reads what is said of one claim: a condition for each operator.
    fn conditions(
        &mut self,
        name: &Spanned<String>,
        value: &Spanned<Node>,
        conditions: &mut Vec<Condition>,
    ) {
        let claim = match ClaimName::parse(&name.value) {
            Ok(claim) => Some(self.claim(claim)),
            Err(why) => {
                self.mistake(name, why.to_string(), None);
                None
            }
        };
        let tests = self.tests(value, true);
        if let Some((claim, slot)) = claim {
            conditions.extend(tests.into_iter().map(|test| Condition {
                claim: Arc::clone(&claim),
                slot,
                test,
            }));
        }
    }

    /// A claim with its index, which is that of any other rule that looks at it.
    fn claim(&mut self, claim: ClaimName) -> (Arc<ClaimName>, usize) {
        let slot = *self.slots.entry(claim.clone()).or_insert(self.claims.len());
        match self.claims.get(slot) {
            Some(known) => (Arc::clone(known), slot),
            None => {
                let claim = Arc::new(claim);
                self.claims.push(Arc::clone(&claim));
                (claim, slot)
            }
        }
    }

    /// Reads a text, which the claim must equal, or operators with what each wants.
    fn tests(&mut self, raw: &Spanned<Node>, may_negate: bool) -> Vec<Test> {
        match &raw.value {
            Node::Scalar(text) => vec![Test::Equals(text.clone())],
            Node::Map(operators) if !operators.is_empty() => operators
                .iter()
                .filter_map(|(operator, operand)| {
                    self.below(&operator.value, |reader| {
                        reader.test(operator, operand, may_negate)
                    })
                })
                .collect(),
            Node::Map(_) | Node::Null => {
                self.mistake(raw, "nothing is said of the claim", OPERATORS);
                Vec::new()
            }
            Node::List(_) => {
                self.mistake(
                    raw,
                    "a list alone says nothing of the claim",
                    "write in: [...] if it must be one of these",
                );
                Vec::new()
            }
            Node::Fraction => {
                self.fraction(raw);
                Vec::new()
            }
        }
    }

    fn test(
        &mut self,
        operator: &Spanned<String>,
        operand: &Spanned<Node>,
        may_negate: bool,
    ) -> Option<Test> {
        match operator.value.as_str() {
            "equals" => self.text(operand).map(|text| Test::Equals(text.to_owned())),
            "in" => self.texts(operand).map(Test::In),
            "glob" => self.glob(operand).map(Test::Glob),
            "regex" => self.regex(operand).map(Test::Regex),
            "exists" => self.exists(operand).map(Test::Exists),
            "contains" => self
                .filled(operand)
                .map(|text| Test::Contains(text.to_owned())),
            "prefix" => self
                .filled(operand)
                .map(|text| Test::Prefix(text.to_owned())),
            "not" if may_negate => Some(Test::Not(self.tests(operand, false)))
                .filter(|test| *test != Test::Not(vec![])),
            "not" => {
                self.mistake(operator, "not stands inside not", "leave out both");
                None
            }
            _ => {
                let message = format!("unknown operator {}", super::Shown(&operator.value));
                self.mistake(operator, message, OPERATORS);
                None
            }
        }
    }

    fn text<'a>(&mut self, raw: &'a Spanned<Node>) -> Option<&'a str> {
        match &raw.value {
            Node::Scalar(text) => return Some(text),
            Node::Fraction => self.fraction(raw),
            Node::Null => self.mistake(
                raw,
                "the value is missing",
                "write \"\" for a text without characters",
            ),
            Node::List(_) => self.mistake(
                raw,
                "expected one value, not a list",
                "one of several values is in: [...]",
            ),
            Node::Map(_) => self.mistake(raw, "expected a value, not a mapping", None),
        }
        None
    }

    fn fraction<T>(&mut self, raw: &Spanned<T>) {
        self.mistake(
            raw,
            "a number with a fraction or an exponent can be written in several ways",
            "put it in quotes, as the claim has it",
        );
    }

    /// A text that is not empty.
    fn filled<'a>(&mut self, raw: &'a Spanned<Node>) -> Option<&'a str> {
        let text = self.text(raw)?;
        if text.is_empty() {
            self.mistake(raw, "the text is empty, and would fit every claim", None);
            return None;
        }
        Some(text)
    }

    fn texts(&mut self, raw: &Spanned<Node>) -> Option<Vec<String>> {
        let elements = match &raw.value {
            Node::List(elements) if !elements.is_empty() => elements,
            Node::List(_) => {
                self.mistake(
                    raw,
                    "the list is empty, and no claim is one of its values",
                    None,
                );
                return None;
            }
            Node::Null | Node::Scalar(_) | Node::Fraction | Node::Map(_) => {
                self.mistake(raw, "in wants a list", "such as in: [main, release]");
                return None;
            }
        };
        let mut texts: Vec<String> = elements
            .iter()
            .enumerate()
            .filter_map(|(index, element)| self.below(index, |reader| reader.text(element)))
            .map(str::to_owned)
            .collect();
        texts.sort_unstable();
        texts.dedup();
        Some(texts)
    }

    fn glob(&mut self, raw: &Spanned<Node>) -> Option<Glob> {
        let text = self.pattern(raw)?;
        match Glob::parse(text) {
            Ok(glob) => Some(glob),
            Err((why, _)) => {
                self.mistake(raw, why.to_string(), None);
                None
            }
        }
    }

    fn regex(&mut self, raw: &Spanned<Node>) -> Option<Regex> {
        let text = self.pattern(raw)?;
        // A dot stands for any character: with a line break in a claim nobody gets round a rule of `deny`.
        let compile = |pattern: &str| {
            let mut builder = regex::RegexBuilder::new(pattern);
            builder
                .dot_matches_new_line(true)
                .size_limit(MAX_COMPILED_OCTETS)
                .build()
        };
        // Alone first: a parenthesis must not close the group that is put around it.
        let compiled = compile(text).and_then(|_| compile(&format!(r"\A(?:{text})\z")));
        match compiled {
            Ok(compiled) => Some(Regex {
                written: text.to_owned(),
                compiled,
            }),
            Err(regex::Error::CompiledTooBig(_)) => {
                self.mistake(
                    raw,
                    "the regular expression takes more than 1 MiB",
                    "repeat less, or with *",
                );
                None
            }
            Err(error) => {
                let error = error.to_string();
                // The last line says it; those before it draw the place.
                let why = error.lines().last().unwrap_or_default();
                let why = why.strip_prefix("error: ").unwrap_or(why);
                let message = format!("the regular expression cannot be used: {why}");
                self.mistake(raw, message, None);
                None
            }
        }
    }

    fn pattern<'a>(&mut self, raw: &'a Spanned<Node>) -> Option<&'a str> {
        let text = self.filled(raw)?;
        if text.len() > MAX_PATTERN_OCTETS {
            self.mistake(
                raw,
                format!("the pattern is longer than {MAX_PATTERN_OCTETS} octets"),
                None,
            );
            return None;
        }
        Some(text)
    }

    fn exists(&mut self, raw: &Spanned<Node>) -> Option<bool> {
        match &raw.value {
            Node::Scalar(text) if text == "true" => Some(true),
            Node::Scalar(text) if text == "false" => Some(false),
            Node::Null | Node::Scalar(_) | Node::Fraction | Node::List(_) | Node::Map(_) => {
                self.mistake(raw, "exists wants true or false", None);
                None
            }
        }
    }
}

//! From the text of a template to its steps.
//!
//! Follows Go's lexer and parser (`text/template/parse`) where white space, trimming and quoting are concerned: whatever is
//! accepted here is accepted there and means the same.

use super::{Expression, Function, Place, Step};
use crate::excerpt::Excerpt;

/// The longest text of a template, in octets.
const MAX_OCTETS: usize = 8 * 1024;
/// How deep parentheses may be nested, and how deep `if` in `if`.
const MAX_DEPTH: usize = 16;

/// A text is not a template that is understood here.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateSyntaxError {
    /// Where, in octets from the template's first; at a character's beginning.
    pub offset: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

type Parsed<T> = Result<T, TemplateSyntaxError>;

/// The steps of a template, in order.
pub(super) fn parse(text: &str) -> Parsed<Vec<Step>> {
    let mut parser = Parser {
        text,
        position: 0,
        steps: Vec::new(),
        open: Vec::new(),
    };
    if text.len() > MAX_OCTETS {
        return Err(error(
            0,
            format!("the template is longer than {MAX_OCTETS} octets"),
        ));
    }
    while parser.literal() {
        parser.action()?;
    }
    match parser.open.last() {
        Some(open) => Err(error(open.offset, "this `if` has no {{ end }}")),
        None => Ok(parser.steps),
    }
}

fn error(offset: usize, message: impl Into<String>) -> TemplateSyntaxError {
    TemplateSyntaxError {
        offset,
        message: message.into(),
    }
}

/// An `if` whose `end` was not reached yet.
struct Open {
    offset: usize,
    /// The `Unless` of its last condition, until it is known where to go on; gone after a plain `else`.
    unless: Option<usize>,
    /// The steps that go to its end.
    gotos: Vec<usize>,
}

struct Parser<'a> {
    text: &'a str,
    /// In octets; what is before it was read.
    position: usize,
    steps: Vec<Step>,
    open: Vec<Open>,
}

/// What white space is to Go's templates.
const fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

const fn is_name_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || octet == b'_'
}

impl<'a> Parser<'a> {
    /// What was not read yet.
    fn rest(&self) -> &'a str {
        self.text.get(self.position..).unwrap_or_default()
    }

    /// Reads `expected`, if that is what follows.
    fn take(&mut self, expected: &str) -> bool {
        let follows = self.rest().starts_with(expected);
        if follows {
            self.position += expected.len();
        }
        follows
    }

    /// Reads so many octets, which end at the end of a character.
    fn take_octets(&mut self, octets: usize) -> &'a str {
        let (taken, _) = self.rest().split_at_checked(octets).unwrap_or_default();
        self.position += taken.len();
        taken
    }

    /// Reads white space, but for the space that belongs to ` -}}`. Whether there was some.
    fn spaces(&mut self) -> bool {
        let rest = self.rest();
        let spaces = rest.len() - rest.trim_start_matches(is_space).len();
        let is_trim = self.text.get(self.position + spaces..);
        let is_trim = is_trim.is_some_and(|rest| rest.starts_with("-}}"));
        self.take_octets(spaces.saturating_sub(usize::from(is_trim)));
        spaces > 0
    }

    /// Reads the text before the next action, and the `{{` of that; whether there is one.
    fn literal(&mut self) -> bool {
        let rest = self.rest();
        let Some(end) = rest.find("{{") else {
            self.write(rest);
            self.position = self.text.len();
            return false;
        };
        let mut literal = self.take_octets(end);
        self.take("{{");
        let mut marker = self.rest().chars();
        if marker.next() == Some('-') && marker.next().is_some_and(is_space) {
            self.take_octets(2);
            literal = literal.trim_end_matches(is_space);
        }
        self.write(literal);
        true
    }

    fn write(&mut self, literal: &str) {
        if !literal.is_empty() {
            self.steps.push(Step::Text(literal.into()));
        }
    }

    /// Reads an action, from after its `{{`, with its `}}`.
    fn action(&mut self) -> Parsed<()> {
        if self.rest().starts_with("/*") {
            return self.comment();
        }
        self.spaces();
        let offset = self.position;
        match self.peek_word() {
            "if" => {
                self.take("if");
                if self.open.len() == MAX_DEPTH {
                    return Err(error(
                        offset,
                        format!("`if` is nested deeper than {MAX_DEPTH}"),
                    ));
                }
                let unless = self.condition()?;
                self.open.push(Open {
                    offset,
                    unless: Some(unless),
                    gotos: Vec::new(),
                });
            }
            "else" => self.otherwise(offset)?,
            "end" => {
                self.take("end");
                self.spaces();
                let open = self.open.pop();
                let open = open.ok_or_else(|| error(offset, "`end` without an `if`"))?;
                self.jump_here(open.unless.into_iter().chain(open.gotos));
            }
            _ => {
                let expression = self.command(0)?;
                self.steps.push(Step::Print(expression));
            }
        }
        self.close_action()
    }

    /// Reads `else` or `else if` with a condition.
    fn otherwise(&mut self, offset: usize) -> Parsed<()> {
        self.take("else");
        self.spaces();
        let mut open = self.open.pop();
        let unless = open.as_mut().and_then(|open| open.unless.take());
        let (Some(mut open), Some(unless)) = (open, unless) else {
            return Err(error(
                offset,
                "`else` without an `if`, or after another `else`",
            ));
        };
        open.gotos.push(self.steps.len());
        self.steps.push(Step::Goto(0));
        self.jump_here([unless]);
        if self.peek_word() == "if" {
            self.take("if");
            open.unless = Some(self.condition()?);
        }
        self.open.push(open);
        Ok(())
    }

    /// Reads the condition of an `if`; the step that it becomes.
    fn condition(&mut self) -> Parsed<usize> {
        if !self.spaces() && !self.rest().starts_with(['(', '.']) {
            return Err(self.unexpected("a space and a condition after `if`"));
        }
        let condition = self.command(0)?;
        self.steps.push(Step::Unless {
            condition,
            otherwise: 0,
        });
        Ok(self.steps.len() - 1)
    }

    /// Lets steps that jump do so to the next step that is written.
    fn jump_here(&mut self, jumps: impl IntoIterator<Item = usize>) {
        let here = self.steps.len();
        for jump in jumps {
            match self.steps.get_mut(jump) {
                Some(Step::Unless { otherwise, .. }) => *otherwise = here,
                Some(Step::Goto(step)) => *step = here,
                Some(Step::Text(_) | Step::Print(_)) | None => {}
            }
        }
    }

    /// Reads a comment, from after its `{{`. It fills the action.
    fn comment(&mut self) -> Parsed<()> {
        let offset = self.position;
        let Some(end) = self.rest().get(2..).and_then(|rest| rest.find("*/")) else {
            return Err(error(offset, "the comment has no end"));
        };
        self.take_octets(end + 4);
        if !self.rest().starts_with("}}") && !self.ends_with_trim() {
            return Err(error(
                self.position,
                "expected }} directly after the comment's */",
            ));
        }
        self.close_action()
    }

    /// Whether a white space and `-}}` follow.
    fn ends_with_trim(&self) -> bool {
        let after_space = self.rest().strip_prefix(is_space);
        after_space.is_some_and(|rest| rest.starts_with("-}}"))
    }

    /// Whether the action or the parentheses end here.
    fn is_at_end(&self) -> bool {
        self.rest().starts_with(')') || self.rest().starts_with("}}") || self.ends_with_trim()
    }

    fn close_action(&mut self) -> Parsed<()> {
        if self.ends_with_trim() {
            self.take_octets(" -}}".len());
            let rest = self.rest();
            self.take_octets(rest.len() - rest.trim_start_matches(is_space).len());
            return Ok(());
        }
        if self.take("}}") {
            return Ok(());
        }
        Err(self.unexpected("}}"))
    }

    /// The word that follows: what may be a keyword or a function.
    fn peek_word(&self) -> &'a str {
        let rest = self.rest();
        let end = rest.bytes().position(|octet| !is_name_octet(octet));
        rest.get(..end.unwrap_or(rest.len())).unwrap_or_default()
    }

    /// Reads a function with its arguments, or a single operand, up to the end of the action or parentheses.
    fn command(&mut self, depth: usize) -> Parsed<Expression> {
        let offset = self.position;
        let word = self.peek_word();
        let expression = if word.starts_with(|first: char| first.is_ascii_digit()) {
            Err(self.unexpected("a field, such as .name"))
        } else if word.is_empty() {
            self.operand(depth)
        } else {
            self.take_octets(word.len());
            self.call(word, offset, depth)
        }?;
        self.spaces();
        if self.is_at_end() {
            return Ok(expression);
        }
        Err(self.unexpected("the end of the action"))
    }

    /// Reads the arguments of a function whose name was read.
    fn call(&mut self, name: &str, offset: usize, depth: usize) -> Parsed<Expression> {
        if name == "index" {
            return self.index(offset);
        }
        let known = Function::ALL
            .into_iter()
            .find(|function| function.name() == name);
        let Some(function) = known else {
            let message = match name {
                "range" | "with" | "define" | "template" | "block" | "break" | "continue" => {
                    format!("`{name}` is not supported; expected a value, `if`, `else` or `end`")
                }
                _ => format!(
                    "function \"{}\" is not supported; expected and, eq, index, ne, not, or",
                    Excerpt::new(name).unquoted()
                ),
            };
            return Err(error(offset, message));
        };
        let mut arguments = Vec::new();
        while self.spaces() && !self.is_at_end() {
            arguments.push(self.operand(depth)?);
        }
        let count = arguments.len();
        let mut arguments = arguments.into_iter();
        match arguments.next() {
            Some(first) if function.takes(count) => Ok(Expression::Call {
                function,
                first: Box::new(first),
                rest: arguments.collect(),
            }),
            Some(_) | None => Err(error(
                offset,
                format!("wrong number of arguments for `{function}`: {count}"),
            )),
        }
    }

    /// Reads what follows `index`: the dot, and the name of a value.
    fn index(&mut self, offset: usize) -> Parsed<Expression> {
        const EXPECTED: &str = "`index` is understood only as index . \"name\"";
        let is_of_dot = self.spaces() && self.take(".") && self.spaces();
        if !is_of_dot || !self.rest().starts_with(['"', '`']) {
            return Err(error(offset, EXPECTED));
        }
        let name = self.string()?;
        self.spaces();
        if !self.is_at_end() {
            return Err(error(offset, EXPECTED));
        }
        Ok(Expression::Index(name.into()))
    }

    /// Reads a field, a string or something in parentheses.
    fn operand(&mut self, depth: usize) -> Parsed<Expression> {
        let offset = self.position;
        if self.rest().starts_with(['"', '`']) {
            return Ok(Expression::Text(self.string()?.into()));
        }
        if self.take("(") {
            if depth == MAX_DEPTH {
                return Err(error(
                    offset,
                    format!("parentheses are nested deeper than {MAX_DEPTH}"),
                ));
            }
            self.spaces();
            let inner = self.command(depth + 1)?;
            return if self.take(")") {
                Ok(inner)
            } else {
                Err(self.unexpected("`)`"))
            };
        }
        if self.take(".") {
            let name = self.peek_word();
            let is_name = name.starts_with(|first: char| !first.is_ascii_digit());
            self.take_octets(name.len());
            let follows = self.rest().chars().next();
            let is_whole = follows.is_none_or(|next| is_space(next) || matches!(next, ')' | '}'));
            if !is_name || !is_whole {
                let message = "expected the name of a value after the dot, of letters, digits and _; for other names write index . \"name\"";
                return Err(error(offset, message));
            }
            return Ok(Expression::Field {
                name: name.into(),
                place: self.place(offset),
            });
        }
        Err(self.unexpected("a field such as .name, a string, or `(`"))
    }

    /// Where an octet stands, as Go counts in messages.
    fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        Place {
            line: before.bytes().filter(|&octet| octet == b'\n').count() + 1,
            column: offset - line_start,
        }
    }

    /// Reads a string literal of Go, in double quotes or backquotes.
    fn string(&mut self) -> Parsed<String> {
        let offset = self.position;
        let unterminated = || error(offset, "the string has no end");
        if self.take("`") {
            let end = self.rest().find('`').ok_or_else(unterminated)?;
            let text = self.take_octets(end).replace('\r', "");
            self.take("`");
            return Ok(text);
        }
        self.take("\"");
        let mut octets = Vec::new();
        loop {
            let place = self.position;
            let next = self.rest().chars().next().ok_or_else(unterminated)?;
            self.take_octets(next.len_utf8());
            match next {
                '"' => break,
                '\n' => return Err(unterminated()),
                '\\' => {
                    let escaped = self.escape();
                    octets.extend(
                        escaped.ok_or_else(|| {
                            error(place, "this is no escape sequence of Go strings")
                        })?,
                    );
                }
                next => octets.extend(next.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        String::from_utf8(octets).map_err(|_| error(offset, "the string is not UTF-8"))
    }

    /// Reads an escape sequence (The Go Programming Language Specification, "Rune literals"), from after its backslash.
    fn escape(&mut self) -> Option<Vec<u8>> {
        let kind = self.rest().chars().next()?;
        self.take_octets(kind.len_utf8());
        let octet = match kind {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            '\\' => b'\\',
            '"' => b'"',
            'x' => u8::try_from(self.digits(2, 16)?).ok()?,
            '0'..='7' => {
                self.position -= 1;
                u8::try_from(self.digits(3, 8)?).ok()?
            }
            'u' | 'U' => {
                let value = self.digits(if kind == 'u' { 4 } else { 8 }, 16)?;
                let character = char::from_u32(value)?;
                return Some(character.encode_utf8(&mut [0; 4]).as_bytes().to_vec());
            }
            _ => return None,
        };
        Some(vec![octet])
    }

    /// Reads a number of exactly so many digits.
    fn digits(&mut self, count: usize, radix: u32) -> Option<u32> {
        let digits = self.rest().get(..count)?;
        let is_number = digits.chars().all(|digit| digit.is_digit(radix));
        self.take_octets(count);
        u32::from_str_radix(digits, radix)
            .ok()
            .filter(|_| is_number)
    }

    fn unexpected(&self, expected: &str) -> TemplateSyntaxError {
        let found = match self.rest().chars().next() {
            None => "the end of the template".to_owned(),
            Some(character) => {
                let found = Excerpt::new(character.encode_utf8(&mut [0; 4]));
                found.to_string()
            }
        };
        error(
            self.position,
            format!(
                "found {found}, expected {expected}; pipes, variables, numbers and other operators are not supported"
            ),
        )
    }
}

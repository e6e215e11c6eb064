//! Templates, and the claims that they make into certificates.

use std::collections::BTreeMap;

use mayfly::ca::extensions;
use mayfly::identity::San;
use mayfly::identity::ci_provider::{CiProvider, ProviderTexts};
use mayfly::identity::json::parse_object;
use mayfly::identity::template::{MAX_OUTPUT_OCTETS, Template, Values};
use serde_json::{Map, Value};
use url::Url;

use super::check_message;

/// A template, a NUL, and claims: what comes of it is what a naive interpreter makes of it; a name that comes of it is a URI
/// that another library reads.
pub fn template(input: &[u8]) -> bool {
    let Some((text, claims)) = str::from_utf8(input)
        .ok()
        .and_then(|input| input.split_once('\0'))
    else {
        return false;
    };
    let Ok(claims) = parse_object(claims.as_bytes(), 4) else {
        return false;
    };
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(error) => {
            assert!(text.is_char_boundary(error.offset), "{error:?}");
            check_message(&error);
            return false;
        }
    };
    assert_eq!(template.as_str(), text);
    let defaults = BTreeMap::from([("url".to_owned(), "https://forge.example".to_owned())]);
    let rendered = template.render(Values::new(&claims, &defaults));
    let expected = naive(text, &claims).filter(|output| output.len() <= MAX_OUTPUT_OCTETS);
    if let Err(error) = &rendered {
        check_message(error);
    }
    assert_eq!(rendered.as_ref().ok(), expected.as_ref(), "{rendered:?}");

    // What it does not name has no part in it.
    let names = template.names();
    let named = claims
        .iter()
        .filter(|(name, _)| names.contains(&name.as_str()));
    let named: Map<String, Value> = named
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    assert_eq!(template.render(Values::new(&named, &defaults)), rendered);

    let texts = ProviderTexts {
        name: "forge",
        defaults,
        san: text,
        ..ProviderTexts::default()
    };
    let Ok(provider) = CiProvider::new(texts) else {
        assert!(text.trim().is_empty());
        return false;
    };
    match provider.describe(&claims) {
        Ok((San::Uri(uri), _)) => check_name(&uri, text),
        Ok((other, _)) => panic!("{other:?}"),
        Err(error) => check_message(&error),
    }
    rendered.is_ok()
}

fn check_name(uri: &str, template: &str) {
    assert!(uri.bytes().all(|octet| octet.is_ascii_graphic()), "{uri}");
    assert!(!uri.contains('#') && uri.len() <= 2048, "{uri}");
    let url = Url::parse(uri);
    // A port of more than 16 bits, and an address that is none, are not looked for.
    if let Ok(url) = url {
        assert!(url.host_str().is_some_and(|host| !host.is_empty()), "{uri}");
        assert_eq!((url.username(), url.password()), ("", None), "{uri}");
        let is_written = template.to_ascii_lowercase().contains(url.scheme());
        assert!(url.scheme() == "https" || is_written, "{uri}");
    }
    extensions::subject_alternative_name(&San::Uri(uri.to_owned())).unwrap();
}

/// What an expression comes to.
#[derive(Clone, PartialEq)]
enum Outcome {
    Text(String),
    Truth(bool),
}

impl Outcome {
    fn show(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Truth(truth) => truth.to_string(),
        }
    }

    fn holds(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Truth(truth) => *truth,
        }
    }
}

/// Interprets a template that is known to be good; nothing when a value is missing or of no use.
fn naive(text: &str, claims: &Map<String, Value>) -> Option<String> {
    if !text.contains("{{") {
        return look_up(claims, text)?;
    }
    let mut output = String::new();
    // For each `if` that is open: whether one of its conditions held before, and whether the text here counts.
    let mut open: Vec<(bool, bool)> = Vec::new();
    for piece in split(text) {
        let counts = |open: &[(bool, bool)]| open.iter().all(|(_, counts)| *counts);
        let action = match piece {
            Piece::Text(text) => {
                if counts(&open) {
                    output.push_str(text);
                }
                continue;
            }
            Piece::Action(action) => action,
        };
        let tokens = tokens(action);
        match tokens.first().map(String::as_str) {
            // Only a comment has nothing in it.
            None => {}
            Some("if") => {
                let holds = counts(&open) && evaluate(&mut &tokens[1..], claims)?.holds();
                open.push((holds, holds));
            }
            Some("else") => {
                let (held, _) = open.pop().unwrap();
                let is_considered = !held && counts(&open);
                let holds = is_considered
                    && (tokens.len() == 1 || evaluate(&mut &tokens[2..], claims)?.holds());
                open.push((held || holds, holds));
            }
            Some("end") => drop(open.pop()),
            Some(_) if counts(&open) => {
                output.push_str(&evaluate(&mut &tokens[..], claims)?.show());
            }
            Some(_) => {}
        }
    }
    Some(output)
}

/// A value: the outer `None` is one of no use, the inner one that is missing.
fn look_up(claims: &Map<String, Value>, name: &str) -> Option<Option<String>> {
    match claims.get(name) {
        None if name == "url" => Some(Some("https://forge.example".to_owned())),
        None => Some(None),
        Some(Value::String(text)) => Some(Some(text.clone())),
        Some(Value::Bool(truth)) => Some(Some(truth.to_string())),
        Some(Value::Number(number)) => match number.as_f64() {
            _ if !number.is_f64() => Some(Some(number.to_string())),
            // The fewest digits that read back as the same number, then zeros, as Go writes it.
            Some(float) if float.fract() == 0.0 => Some(Some(format!("{float}"))),
            _ => None,
        },
        Some(Value::Null | Value::Array(_) | Value::Object(_)) => None,
    }
}

enum Piece<'a> {
    Text(&'a str),
    Action(&'a str),
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// Cuts a template into texts and actions, and trims the texts.
fn split(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trims = false;
    loop {
        let start = rest.find("{{");
        let (mut literal, action) = rest.split_at(start.unwrap_or(rest.len()));
        if trims {
            literal = literal.trim_start_matches(SPACE);
        }
        let Some(mut action) = action.strip_prefix("{{") else {
            pieces.push(Piece::Text(literal));
            return pieces;
        };
        if action.starts_with('-') && action[1..].starts_with(SPACE) {
            literal = literal.trim_end_matches(SPACE);
            action = &action[2..];
        }
        pieces.push(Piece::Text(literal));
        let end = match action.strip_prefix("/*") {
            Some(comment) => {
                let end = comment.find("*/").unwrap() + 4;
                end + action[end..].find("}}").unwrap()
            }
            None => end_of(action),
        };
        rest = &action[end + 2..];
        action = &action[..end];
        trims = action.ends_with('-') && action[..end - 1].ends_with(SPACE);
        if trims {
            action = &action[..end - 1];
        }
        let is_comment = action.starts_with("/*");
        pieces.push(Piece::Action(if is_comment { "" } else { action }));
    }
}

/// Where an action ends: at the first `}}` that is in no string.
fn end_of(action: &str) -> usize {
    let mut quote = None;
    let mut is_escaped = false;
    for (index, character) in action.char_indices() {
        match quote {
            None if action[index..].starts_with("}}") => return index,
            None => quote = Some(character).filter(|first| ['"', '`'].contains(first)),
            Some('"') if is_escaped => is_escaped = false,
            Some('"') if character == '\\' => is_escaped = true,
            Some(begun) if begun == character => quote = None,
            Some(_) => {}
        }
    }
    panic!("an action without end was accepted: {action}");
}

/// Cuts an action into words, parentheses and strings. Strings keep a quotation mark before their value.
fn tokens(action: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = action.trim_start_matches(SPACE);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' => 1,
            '`' => rest[1..].find('`').unwrap() + 2,
            '"' => {
                let mut escapes = false;
                let is_end = |(_, character): &(usize, char)| {
                    let is_end = !escapes && *character == '"';
                    escapes = !escapes && *character == '\\';
                    is_end
                };
                rest[1..].char_indices().find(is_end).unwrap().0 + 2
            }
            // A word; it has no dot in it but its first character, and `index` is alone before its dot.
            _ => {
                let is_end =
                    |character: char| SPACE.contains(&character) || "().\"`".contains(character);
                rest[1..].find(is_end).map_or(rest.len(), |end| end + 1)
            }
        };
        let (token, after) = rest.split_at(length);
        tokens.push(match first {
            '`' => format!("\"{}", token.trim_matches('`').replace('\r', "")),
            '"' => format!("\"{}", unquote(&token[1..length - 1])),
            _ => token.to_owned(),
        });
        rest = after.trim_start_matches(SPACE);
    }
    tokens
}

/// The value of what stands in a string of Go.
fn unquote(text: &str) -> String {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let number = |start: usize, digits: usize, radix: u32| {
            let digits = &rest[start..start + digits];
            (
                u32::from_str_radix(digits, radix).unwrap(),
                start + digits.len(),
            )
        };
        let length = match (first, rest.as_bytes().get(1)) {
            ('\\', Some(b'x')) => {
                let (value, length) = number(2, 2, 16);
                octets.push(u8::try_from(value).unwrap());
                length
            }
            ('\\', Some(kind @ (b'u' | b'U'))) => {
                let (value, length) = number(2, if *kind == b'u' { 4 } else { 8 }, 16);
                octets.extend(char::from_u32(value).unwrap().to_string().bytes());
                length
            }
            ('\\', Some(b'0'..=b'7')) => {
                let (value, length) = number(1, 3, 8);
                octets.push(u8::try_from(value).unwrap());
                length
            }
            ('\\', kind) => {
                let kind = "abfnrtv\\\"".find(char::from(*kind.unwrap())).unwrap();
                octets.push(b"\x07\x08\x0c\n\r\t\x0b\\\""[kind]);
                2
            }
            _ => {
                octets.extend(first.to_string().bytes());
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    String::from_utf8(octets).unwrap()
}

/// A function with its arguments, or an operand, up to `)` or the end.
fn evaluate(tokens: &mut &[String], claims: &Map<String, Value>) -> Option<Outcome> {
    let function = tokens.first().unwrap().as_str();
    if !["and", "eq", "index", "ne", "not", "or"].contains(&function) {
        return operand(tokens, claims);
    }
    *tokens = &tokens[1..];
    if function == "index" {
        let name = tokens[1].strip_prefix('"').unwrap();
        *tokens = &tokens[2..];
        return Some(Outcome::Text(look_up(claims, name)?.unwrap_or_default()));
    }
    let mut outcomes = Vec::new();
    let mut is_decided = false;
    while tokens.first().is_some_and(|token| token != ")") {
        // What follows a decision is not looked at, so that nothing is missing there.
        let outcome = if is_decided {
            skip(tokens);
            continue;
        } else {
            operand(tokens, claims)?
        };
        is_decided = match function {
            "and" => !outcome.holds(),
            "or" => outcome.holds(),
            _ => false,
        };
        outcomes.push(outcome);
    }
    let first = outcomes[0].clone();
    match function {
        "and" | "or" => outcomes.pop(),
        "not" => Some(Outcome::Truth(!first.holds())),
        _ => {
            let mut is_equal = false;
            for other in &outcomes[1..] {
                if std::mem::discriminant(&first) != std::mem::discriminant(other) {
                    return None;
                }
                is_equal = first == *other;
                if is_equal {
                    break;
                }
            }
            Some(Outcome::Truth(is_equal == (function == "eq")))
        }
    }
}

/// A field, a string, or something in parentheses.
fn operand(tokens: &mut &[String], claims: &Map<String, Value>) -> Option<Outcome> {
    let (token, rest) = tokens.split_first().unwrap();
    *tokens = rest;
    if token == "(" {
        let outcome = evaluate(tokens, claims)?;
        assert_eq!(tokens.first().map(String::as_str), Some(")"));
        *tokens = &tokens[1..];
        return Some(outcome);
    }
    let text = match token.strip_prefix('.') {
        Some(name) => look_up(claims, name)??,
        None => token.strip_prefix('"').unwrap().to_owned(),
    };
    Some(Outcome::Text(text))
}

/// Passes over an operand.
fn skip(tokens: &mut &[String]) {
    let mut depth = 0;
    loop {
        let (token, rest) = tokens.split_first().unwrap();
        *tokens = rest;
        match token.as_str() {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

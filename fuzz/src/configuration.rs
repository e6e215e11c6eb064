//! The operator's files. Nobody hostile writes them, but a mistake must end in a message, at once.

use std::collections::HashMap;

use mayfly::config::Settings;
use mayfly::identity::json::parse_object;
use mayfly::identity::{IssuerConfiguration, Issuers};
use serde_json::{Map, Value, json};

use super::check_message;

/// An identity file: what is read of it, written down again, reads the same.
pub fn identity_yaml(input: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(input) else {
        return false;
    };
    let issuers = match Issuers::parse("identity.yaml", text) {
        Ok((issuers, _)) => issuers,
        Err(findings) => {
            assert!(!findings.is_empty());
            for finding in findings {
                assert!(finding.line >= 1 && finding.column >= 1, "{finding:?}");
            }
            return false;
        }
    };
    let configuration = issuers.configuration();
    let written = write(&configuration);
    let (again, _) = Issuers::parse("again.json", &written)
        .unwrap_or_else(|findings| panic!("{findings:?}: {written}"));
    assert_eq!(again.configuration(), configuration);
    for issuer in issuers.all() {
        assert!(!issuer.audiences.is_empty() && !issuer.id.is_empty());
        let url = &issuer.endpoint.issuer;
        let found = issuers.lookup(url);
        if !issuer.endpoint.is_wildcard() {
            assert_eq!(found.unwrap().issuer.id, issuer.id);
        }
    }
    true
}

/// The JSON form of an identity file.
fn write(configuration: &[IssuerConfiguration]) -> String {
    let (mut exact, mut wildcards) = (Map::new(), Map::new());
    for issuer in configuration {
        let mut entry = json!({ "ClientID": issuer.audience, "Type": issuer.issuer_type });
        if issuer.issuer_type == "uri" {
            entry["SubjectDomain"] = issuer.subject_domain.as_str().into();
        }
        if issuer.skip_email_verification {
            entry["SkipEmailVerification"] = true.into();
        }
        if issuer.is_wildcard {
            wildcards.insert(issuer.url.clone(), entry);
        } else {
            entry["IssuerURL"] = issuer.url.as_str().into();
            exact.insert(issuer.url.clone(), entry);
        }
    }
    let mut file = Map::new();
    if !exact.is_empty() {
        file.insert("OIDCIssuers".to_owned(), Value::Object(exact));
    }
    if !wildcards.is_empty() {
        file.insert("MetaIssuers".to_owned(), Value::Object(wildcards));
    }
    Value::Object(file).to_string()
}

/// A server's configuration file: it is read the same twice, and errors say where they are, in one line.
pub fn server_yaml(input: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(input) else {
        return false;
    };
    let environment = HashMap::from([("NAME".to_owned(), "value".to_owned())]);
    let read = || Settings::parse("mayfly.yaml", text, environment.clone());
    match read() {
        Ok(settings) => {
            assert_eq!(format!("{settings:?}"), format!("{:?}", read().unwrap()));
            true
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.starts_with("mayfly.yaml"), "{message}");
            assert_eq!(message.lines().count(), 1, "{message}");
            false
        }
    }
}

/// Claim rules (an object with `allow` and `deny`, JSON), a NUL, and claims: what comes of them is what a naive reader makes
/// of them, and every list of rules is as wide as itself.
pub fn rules(input: &[u8]) -> bool {
    let Some((text, claims)) = str::from_utf8(input)
        .ok()
        .and_then(|input| input.split_once('\0'))
    else {
        return false;
    };
    let (Ok(rules), Ok(claims)) = (
        serde_json::from_str::<Map<String, Value>>(text),
        parse_object(claims.as_bytes(), 64),
    ) else {
        return false;
    };
    let [allow, deny] = ["allow", "deny"].map(|list| rules.get(list).cloned().unwrap_or_default());
    let entry = json!({
        "IssuerURL": "https://issuer.example", "ClientID": "sigstore", "Type": "email", "Allow": &allow, "Deny": &deny,
    });
    let file = json!({ "OIDCIssuers": { "https://issuer.example": entry } });
    let issuers = match Issuers::parse("identity.json", &file.to_string()) {
        Ok((issuers, _)) => issuers,
        Err(findings) => {
            findings.iter().for_each(check_message);
            return false;
        }
    };
    let issuer = issuers.lookup("https://issuer.example").unwrap().issuer;
    let verdict = issuer.access.check(&claims);
    if let Err(error) = &verdict {
        check_message(error);
    }
    for (_, _, rule) in issuer.access.rules() {
        assert!(rule.covers(rule), "{rule}");
        check_message(rule);
    }
    // A second matcher of regular expressions there is not.
    if !text.contains("regex") {
        let list_applies = |list: &Value| {
            let mut rules = list.as_array().into_iter().flatten();
            rules.any(|rule| rule_applies(rule, &claims))
        };
        let is_open = allow.as_array().is_none_or(Vec::is_empty);
        let expected = !list_applies(&deny) && (is_open || list_applies(&allow));
        assert_eq!(verdict.is_ok(), expected, "{text}");
    }
    true
}

fn rule_applies(rule: &Value, claims: &Map<String, Value>) -> bool {
    let conditions = rule.as_object().unwrap();
    conditions
        .iter()
        .all(|(path, test)| passes(test, find(path, claims)))
}

fn find<'a>(path: &str, claims: &'a Map<String, Value>) -> Option<&'a Value> {
    let found = match path.strip_prefix('$') {
        None => claims.get(path),
        Some(path) => {
            let path = path.replace("']", "").replace("['", "\n");
            let quoted = path.contains('\n');
            // Names in quotes may have dots; a path of both kinds is too much for a naive reader.
            let names: Vec<&str> = path
                .split(if quoted { '\n' } else { '.' })
                .skip(1)
                .collect();
            let (outer, inner) = names.split_first().unwrap();
            inner
                .iter()
                .fold(claims.get(*outer), |value, name| value?.get(name))
        }
    };
    found.filter(|value| !value.is_null())
}

fn passes(test: &Value, claim: Option<&Value>) -> bool {
    let Some(operators) = test.as_object() else {
        return claim.and_then(as_text) == as_text(test);
    };
    operators.iter().all(|(operator, operand)| {
        let wanted = || as_text(operand).unwrap();
        let text = claim.and_then(as_text);
        let text = |matches: &dyn Fn(&str) -> bool| text.as_deref().is_some_and(matches);
        match operator.as_str() {
            "equals" => text(&|text| text == wanted()),
            "in" => text(&|text| {
                operand
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|known| as_text(known).unwrap() == text)
            }),
            "prefix" => text(&|text| text.starts_with(&wanted())),
            "glob" => text(&|text| glob_matches(wanted().as_bytes(), text.as_bytes())),
            "exists" => claim.is_some() == (wanted() == "true"),
            "contains" => match claim {
                Some(Value::Array(elements)) => elements
                    .iter()
                    .any(|element| as_text(element) == Some(wanted())),
                Some(Value::String(text)) => text.split(' ').any(|word| word == wanted()),
                _ => false,
            },
            "not" => !passes(operand, claim),
            other => panic!("{other}"),
        }
    })
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// All texts that a star can stand for are tried; which of them failed is remembered, or long inputs would take for ever.
fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    let mut reachable = vec![vec![false; text.len() + 1]; pattern.len() + 1];
    reachable[0][0] = true;
    for index in 0..pattern.len() {
        let is_double = pattern[index..].starts_with(b"**");
        for start in 0..=text.len() {
            if !reachable[index][start] {
                continue;
            }
            if pattern[index] != b'*' {
                if text.get(start) == Some(&pattern[index]) {
                    reachable[index + 1][start + 1] = true;
                }
                continue;
            }
            for end in start..=text.len() {
                let is_crossed = text[start..end].contains(&b'/');
                if is_crossed && !is_double {
                    break;
                }
                reachable[index + if is_double { 2 } else { 1 }][end] = true;
            }
        }
    }
    reachable[pattern.len()][text.len()]
}

//! The operator's files. Nobody hostile writes them, but a mistake must end in a message, at once.

use std::collections::HashMap;

use mayfly::config::Settings;
use mayfly::identity::{IssuerConfiguration, Issuers};
use serde_json::{Map, Value, json};

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

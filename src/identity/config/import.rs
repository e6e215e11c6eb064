//! Fulcio's configuration as a file of ours: out of the ConfigMap that carries it, in YAML, and with the names that the
//! documentation has.
//!
//! A text that is so already is kept with its comments. Any other is written anew, key by key in its order, with what its
//! aliases stand for in their place.

use serde_json::{Map, Value};

use super::raw::{self, RawFile, RawIssuer, RawMetadata};

/// Where a ConfigMap for Fulcio has the configuration.
const CONFIG_MAP_KEYS: [&str; 3] = ["config.yaml", "config.yml", "config.json"];

/// Why a text is no configuration of Fulcio's.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is neither YAML nor JSON.
    #[error("{0}")]
    Unreadable(String),
    /// It is a ConfigMap without a configuration, or with several.
    #[error(
        "a ConfigMap for Fulcio has one of {}; this one has {}",
        CONFIG_MAP_KEYS.join(", "),
        if .0.is_empty() { "nothing".to_owned() } else { .0.join(", ") }
    )]
    ConfigMap(Vec<String>),
    /// What was read cannot be written.
    #[error("it cannot be written as YAML: {0}")]
    Unwritable(String),
}

/// What a file of Fulcio's comes to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Import {
    /// The key of the ConfigMap that had it, if there was one.
    pub key: Option<&'static str>,
    /// The configuration as it was, without the ConfigMap around it.
    pub original: String,
    /// The same as a file of ours.
    pub converted: String,
}

/// Converts a configuration of Fulcio's: YAML or JSON, or a ConfigMap that has it. Whether it holds up is not checked.
///
/// # Errors
/// When it cannot be read.
pub fn import(text: &str) -> Result<Import, ImportError> {
    let document = read(text)?;
    let members = document.as_object();
    let config_map = members.filter(|members| members.get("kind").is_some_and(is_config_map));
    let (key, original) = match config_map {
        Some(members) => configuration_of(members).map(|(key, text)| (Some(key), text))?,
        None => (None, text.to_owned()),
    };
    let document = read(&original)?;
    let renamed = with_documented_names(document.clone());
    let is_json = original.trim_start().starts_with('{');
    let converted = if renamed == document && !is_json {
        original.clone()
    } else {
        serde_saphyr::to_string(&renamed)
            .map_err(|error| ImportError::Unwritable(error.to_string()))?
    };
    Ok(Import {
        key,
        original,
        converted,
    })
}

fn read(text: &str) -> Result<Value, ImportError> {
    raw::parse(0, text).map_err(|error| {
        let (line, column) = (error.place.line, error.place.column);
        ImportError::Unreadable(format!("line {line}, column {column}: {}", error.message))
    })
}

fn is_config_map(kind: &Value) -> bool {
    kind == "ConfigMap"
}

/// The text in the ConfigMap's `data`, with its key.
fn configuration_of(members: &Map<String, Value>) -> Result<(&'static str, String), ImportError> {
    let data = members.get("data").and_then(Value::as_object);
    let found = CONFIG_MAP_KEYS
        .iter()
        .filter_map(|key| Some((*key, data?.get(*key)?.as_str()?)));
    match found.collect::<Vec<_>>()[..] {
        [(key, text)] => Ok((key, text.to_owned())),
        _ => {
            let keys = data.map(|data| data.keys().cloned().collect());
            Err(ImportError::ConfigMap(keys.unwrap_or_default()))
        }
    }
}

/// The keys in the spelling of YAML, at the three levels that have a spelling for JSON; names that people chose stay.
fn with_documented_names(document: Value) -> Value {
    let mut document = renamed(document, RawFile::SPELLINGS);
    let levels = [
        ("oidc-issuers", RawIssuer::SPELLINGS),
        ("meta-issuers", RawIssuer::SPELLINGS),
        ("ci-issuer-metadata", RawMetadata::SPELLINGS),
    ];
    for (section, spellings) in levels {
        if let Some(Value::Object(entries)) = document.get_mut(section) {
            for entry in entries.values_mut() {
                *entry = renamed(entry.take(), spellings);
            }
        }
    }
    document
}

fn renamed(mapping: Value, spellings: &[(&str, &str)]) -> Value {
    let Value::Object(members) = mapping else {
        return mapping;
    };
    let members = members.into_iter().map(|(key, value)| {
        let known = spellings.iter().find(|(_, json)| *json == key);
        (known.map_or(key, |(yaml, _)| (*yaml).to_owned()), value)
    });
    Value::Object(members.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "# who\noidc-issuers:\n  https://a.example: # people\n    issuer-url: https://a.example\n    \
                        client-id: sigstore\n    type: email\n";

    #[test]
    fn a_file_in_our_names_stays_as_it_is() {
        assert_eq!(import(YAML).unwrap().converted, YAML);
    }

    #[test]
    fn the_spelling_of_json_becomes_that_of_the_documentation_in_the_same_order() {
        let json = r#"{"OIDCIssuers": {
            "https://z.example": {"Type": "email", "IssuerURL": "https://z.example", "ClientID": "0123", "CACert": "a\nb\n"},
            "https://a.example": {"Type": "uri", "ClientID": "yes", "SkipEmailVerification": true}},
            "CIIssuerMetadata": {"mine": {"ExtensionTemplates": {"ClientID": "{{ .Type }}"}}}}"#;
        let converted = import(json).unwrap().converted;
        let first = "oidc-issuers:\n  \"https://z.example\":\n    type: email\n    issuer-url: https://z.example\n    client-id: \"0123\"\n    ca-cert: |\n";
        assert!(converted.starts_with(first), "{converted}");
        let read: Value = raw::parse(0, &converted).unwrap();
        assert_eq!(
            read["oidc-issuers"]["https://z.example"]["client-id"],
            "0123"
        );
        assert_eq!(
            read["oidc-issuers"]["https://z.example"]["ca-cert"],
            "a\nb\n"
        );
        assert_eq!(
            read["oidc-issuers"]["https://a.example"]["client-id"],
            "yes"
        );
        assert_eq!(
            read["oidc-issuers"]["https://a.example"]["skip-email-verification"],
            true
        );
        // What templates are for is named by the templates' author.
        assert_eq!(
            read["ci-issuer-metadata"]["mine"]["extension-templates"]["ClientID"],
            "{{ .Type }}"
        );
    }

    #[test]
    fn a_config_map_is_taken_apart() {
        let indented = YAML.replace('\n', "\n    ");
        let map =
            format!("apiVersion: v1\nkind: ConfigMap\ndata:\n  config.yaml: |\n    {indented}\n");
        let Import {
            key,
            original,
            converted,
        } = import(&map).unwrap();
        assert_eq!(key, Some("config.yaml"));
        assert_eq!(converted, original);
        assert_eq!(converted.trim_end(), YAML.trim_end());
        let without = "kind: ConfigMap\ndata: {other: x}\n";
        let error = import(without).unwrap_err().to_string();
        assert!(error.ends_with("this one has other"), "{error}");
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_place() {
        let error = import("oidc-issuers: [\n").unwrap_err().to_string();
        assert!(error.starts_with("line 1, column 15: "), "{error}");
    }
}

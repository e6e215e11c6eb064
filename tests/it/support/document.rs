//! `openapi.yaml`, and answers held against it: status, content type, required headers, and the shape of the body.

use std::sync::OnceLock;

use serde_json::Value;

use super::http::{Answer, Request};

const METHODS: [&str; 8] = [
    "get", "post", "put", "delete", "head", "options", "patch", "trace",
];

/// The document.
pub(crate) fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        serde_saphyr::from_str(include_str!("../../../openapi.yaml")).expect("openapi.yaml is YAML")
    })
}

/// Every operation: method in upper case, path.
pub(crate) fn operations() -> Vec<(String, &'static str)> {
    let paths = document()["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = METHODS.iter().filter(|method| item.get(method).is_some());
        methods.map(move |method| (method.to_ascii_uppercase(), path.as_str()))
    });
    operations.collect()
}

/// Panics unless the document has this answer to this request. What has no path in it must be refused with 404, what has
/// a path and another method with 405.
pub(crate) fn check(request: &Request, answer: &Answer) {
    let path = request.target.split('?').next().unwrap();
    let path = decode(&format!("/{}", path.trim_start_matches('/')));
    if path.starts_with("/dev/") || request.method == "OPTIONS" && answer.status == 204 {
        return;
    }
    let context = format!(
        "{} {} → {} {}",
        request.method,
        request.target,
        answer.status,
        String::from_utf8_lossy(&answer.body)
    );
    assert!(
        answer.header("x-request-id").is_some(),
        "{context}: no X-Request-Id"
    );
    let paths = document()["paths"].as_object().unwrap();
    let Some((_, item)) = paths.iter().find(|(template, _)| fits(template, &path)) else {
        assert_eq!(answer.status, 404, "{context}: not in openapi.yaml");
        return;
    };
    // A log is read with HEAD as with GET, and so are trust files.
    let files = ["/ct/", "/tuf/", "/.well-known/sigstore/"];
    let is_head = request.method == "HEAD" && files.iter().any(|prefix| path.starts_with(prefix));
    let method = if is_head {
        "get".to_owned()
    } else {
        request.method.to_ascii_lowercase()
    };
    let Some(operation) = item.get(&method) else {
        assert_eq!(
            answer.status, 405,
            "{context}: a method that is not in openapi.yaml"
        );
        let allowed = answer.header("allow").expect("Allow").to_ascii_lowercase();
        assert!(
            allowed
                .split(", ")
                .all(|method| method == "head" || item.get(method).is_some()),
            "{context}: {allowed}"
        );
        return;
    };

    let response = &operation["responses"][answer.status.to_string()];
    assert!(
        response.is_object(),
        "{context}: a status that is not in openapi.yaml"
    );
    let response = resolve(response);
    for (name, header) in response
        .get("headers")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if resolve(header)["required"] == true {
            assert!(answer.header(name).is_some(), "{context}: no {name}");
        }
    }
    let content_type = answer.header("content-type").unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap();
    let media = &response["content"][content_type];
    assert!(
        media.is_object(),
        "{context}: content type {content_type:?} is not in openapi.yaml"
    );
    if content_type == "application/json" && request.method != "HEAD" {
        let mut wrong = Vec::new();
        validate(&media["schema"], &answer.json(), "body", &mut wrong);
        assert!(wrong.is_empty(), "{context}: {}", wrong.join("; "));
    }
}

/// Decodes percent-encoded octets.
fn decode(path: &str) -> String {
    let mut parts = path.split('%');
    let mut decoded = parts.next().unwrap().to_owned();
    for part in parts {
        let octet = part
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(char::from(octet.expect("two digits behind a percent sign")));
        decoded += &part[2..];
    }
    decoded
}

/// Whether a path is one of a template's. Its last parameter may hold slashes, as that of the log's tiles does.
fn fits(template: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    let mut wanted = template.split('/').peekable();
    while let Some(expected) = wanted.next() {
        let Some(part) = parts.next() else {
            return false;
        };
        if expected.starts_with('{') {
            if wanted.peek().is_none() {
                return true;
            }
        } else if expected != part {
            return false;
        }
    }
    parts.next().is_none()
}

/// Follows `$ref`.
fn resolve(value: &'static Value) -> &'static Value {
    match value.get("$ref").and_then(Value::as_str) {
        None => value,
        Some(reference) => {
            let target = reference
                .strip_prefix('#')
                .and_then(|pointer| document().pointer(pointer));
            resolve(target.unwrap_or_else(|| panic!("{reference} leads nowhere")))
        }
    }
}

/// Checks a value against a schema: those keywords of JSON Schema that the document uses.
fn validate(schema: &'static Value, value: &Value, place: &str, wrong: &mut Vec<String>) {
    let schema = resolve(schema);
    let length = || {
        value
            .as_array()
            .map(Vec::len)
            .or_else(|| value.as_object().map(serde_json::Map::len))
    };
    let bound = |limit: &Value| usize::try_from(limit.as_u64().expect("a limit")).unwrap();
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        let holds = match keyword.as_str() {
            "type" => match rule.as_array() {
                Some(types) => types.iter().any(|name| has_type(value, name)),
                None => has_type(value, rule),
            },
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "required" => rule
                .as_array()
                .unwrap()
                .iter()
                .all(|name| value.get(name.as_str().unwrap()).is_some()),
            "additionalProperties" => {
                assert_eq!(rule, false, "the only value that is checked");
                let known = schema.get("properties").and_then(Value::as_object);
                let is_known = |name: &String| known.is_some_and(|known| known.contains_key(name));
                value
                    .as_object()
                    .is_none_or(|members| members.keys().all(is_known))
            }
            "minItems" | "minProperties" => length().is_none_or(|length| length >= bound(rule)),
            "maxItems" | "maxProperties" => length().is_none_or(|length| length <= bound(rule)),
            "properties" => {
                for (name, schema) in rule.as_object().unwrap() {
                    if let Some(member) = value.get(name) {
                        validate(schema, member, &format!("{place}.{name}"), wrong);
                    }
                }
                true
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(rule, item, &format!("{place}[{index}]"), wrong);
                }
                true
            }
            "description" | "contentEncoding" | "format" | "example" => true,
            _ => panic!("openapi.yaml uses {keyword}, which is not checked"),
        };
        if !holds {
            wrong.push(format!("{place} breaks {keyword}: {rule}"));
        }
    }
}

fn has_type(value: &Value, name: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        name => panic!("no type {name}"),
    }
}

#[test]
fn the_checker_finds_what_breaks_a_schema() {
    let check = |schema: &str, value: Value| {
        let schema = document()
            .pointer(&format!("/components/schemas/{schema}"))
            .unwrap();
        let mut wrong = Vec::new();
        validate(schema, &value, "body", &mut wrong);
        wrong.join("; ")
    };
    let good = serde_json::json!({ "code": 3, "message": "", "details": [] });
    assert_eq!(check("Error", good), "");
    let bad = serde_json::json!({ "code": "3", "details": [1], "more": 1 });
    let wrong = check("Error", bad);
    for part in [
        "body.code breaks type",
        "breaks required",
        "body.details breaks maxItems",
        "breaks additionalProperties",
    ] {
        assert!(wrong.contains(part), "{wrong}");
    }
    let bad = serde_json::json!({ "chains": [{ "certificates": [] }] });
    assert_eq!(
        check("TrustBundle", bad),
        "body.chains[0].certificates breaks minItems: 1"
    );
}

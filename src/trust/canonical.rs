//! Canonical JSON, the form of a document over which TUF signs: members in the order of their names, no white space, and no
//! escapes but those of quotes and backslashes (OLPC, as the TUF specification names it in section 4.2.1).

use serde_json::Value;

/// The canonical form. Numbers must be whole: the form has no others.
#[must_use]
pub fn canonical(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, value);
    out
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => {
            debug_assert!(!number.is_f64(), "canonical JSON has whole numbers alone");
            out.extend_from_slice(number.to_string().as_bytes());
        }
        Value::String(text) => put_text(out, text),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                put(out, item);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            out.push(b'{');
            for (index, (name, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                put_text(out, name);
                out.push(b':');
                put(out, value);
            }
            out.push(b'}');
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for octet in text.bytes() {
        if matches!(octet, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(octet);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_form_is_that_of_the_other_implementations() {
        for (value, expected) in [
            (json!(null), "null"),
            (json!([true, false, 0, -7]), "[true,false,0,-7]"),
            (
                json!({ "b": 1, "a": { "d": [], "c": {} } }),
                r#"{"a":{"c":{},"d":[]},"b":1}"#,
            ),
            // Everything but quotes and backslashes stands for itself, line ends too.
            (
                json!("a\"b\\c\nd\u{e9}\u{7f}"),
                "\"a\\\"b\\\\c\nd\u{e9}\u{7f}\"",
            ),
            // By octets, in which capitals come first.
            (
                json!({ "é": 1, "z": 2, "Z": 3, "_": 4 }),
                r#"{"Z":3,"_":4,"z":2,"é":1}"#,
            ),
        ] {
            assert_eq!(String::from_utf8(canonical(&value)).unwrap(), expected);
        }
    }
}

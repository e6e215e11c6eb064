//! JSON objects from outside, read strictly: no member twice, no deep nesting, nothing after the end.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::excerpt::Excerpt;

/// The members of an object, in the order in which they stood.
pub type Object = Map<String, Value>;

/// The bytes are not one JSON object (RFC 8259, section 4) within the limits.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidJson(String);

/// Reads one object whose arrays and objects are nested at most `depth` deep, itself included.
///
/// # Errors
/// When the bytes are not such an object, or a member stands twice anywhere in it.
pub fn parse_object(bytes: &[u8], depth: usize) -> Result<Object, InvalidJson> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = StrictValue { depth }.deserialize(&mut deserializer);
    let value = value.and_then(|value| deserializer.end().map(|()| value));
    match value.map_err(|error| InvalidJson(error.to_string()))? {
        Value::Object(object) => Ok(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(InvalidJson("expected an object".to_owned()))
        }
    }
}

/// Reads a value that may hold `depth` more levels of arrays and objects.
#[derive(Clone, Copy)]
struct StrictValue {
    depth: usize,
}

impl StrictValue {
    fn descend<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1);
        depth
            .map(|depth| Self { depth })
            .ok_or_else(|| E::custom("nested too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for StrictValue {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let element = self.descend()?;
        let mut array = Vec::new();
        while let Some(value) = elements.next_element_seed(element)? {
            array.push(value);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let member = self.descend()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(member)?;
            match object.entry(name) {
                serde_json::map::Entry::Vacant(entry) => entry.insert(value),
                serde_json::map::Entry::Occupied(entry) => {
                    let name = Excerpt::new(entry.key());
                    return Err(A::Error::custom(format_args!(
                        "the member {name} stands twice"
                    )));
                }
            };
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_one_strict_object_is_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        for (text, why) in [
            (&b""[..], "EOF"),
            (b"null", "expected an object"),
            (b"[]", "expected an object"),
            (b"\"text\"", "expected an object"),
            (b"\xef\xbb\xbf{}", "expected value"),
            (b"{} {}", "trailing characters"),
            (b"{}x", "trailing characters"),
            (b"{/* comment */}", "key must be a string"),
            (b"{\"a\":NaN}", "expected value"),
            (b"{\"a\":1e400}", "number out of range"),
            (b"{\"a\":\"\xff\"}", "invalid unicode"),
            (br#"{"a":"\ud800"}"#, "unexpected end of hex escape"),
            (br#"{"a":1,"a":2}"#, r#"the member "a" stands twice"#),
            (br#"{"a":1,"\u0061":2}"#, r#"the member "a" stands twice"#),
            (br#"{"a":{"b":1,"b":2}}"#, r#"the member "b" stands twice"#),
            (
                br#"{"a":[{"b":1,"b":2}]}"#,
                r#"the member "b" stands twice"#,
            ),
            (deep.as_bytes(), "nested too deep"),
        ] {
            let error = parse_object(text, 64).unwrap_err().to_string();
            let head = String::from_utf8_lossy(text.get(..40).unwrap_or(text));
            assert!(error.contains(why), "{head}: {error}");
        }
    }

    #[test]
    fn depth_is_counted_from_the_object_itself() {
        let nested = |levels: usize| {
            format!(
                "{{\"a\":{}{}}}",
                "[".repeat(levels - 1),
                "]".repeat(levels - 1)
            )
        };
        assert!(parse_object(nested(64).as_bytes(), 64).is_ok());
        assert!(parse_object(nested(65).as_bytes(), 64).is_err());
    }

    #[test]
    fn names_that_differ_in_case_are_different_names() {
        let object = parse_object(br#"{"email":"a","EMAIL":"b","Email":"c"}"#, 64).unwrap();
        assert_eq!(object.get("email"), Some(&Value::from("a")));
        assert_eq!(object.len(), 3);
    }
}

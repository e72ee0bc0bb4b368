//! Names of JSON fields in any case: dockerd's decoder takes them so, and clients make use of it (docker-py sends
//! `detachKeys` and `CPURealtimePeriod`).

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value};

/// The name in its own spelling; an unknown one is returned as it came.
pub(crate) fn spelled<'a>(known: impl IntoIterator<Item = &'a str>, given: &'a str) -> &'a str {
    let mut right = given;
    for name in known {
        if name == given {
            return given;
        }
        if name.eq_ignore_ascii_case(given) {
            right = name;
        }
    }
    right
}

/// Reads a value; the fields of every structure in it may be spelled in any case.
///
/// # Errors
/// serde's, naming the field or the type that does not fit.
pub(crate) fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(AnyCase(value))
}

struct AnyCase(Value);

impl<'de> IntoDeserializer<'de, Error> for AnyCase {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for AnyCase {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(list) => {
                let mut seq = SeqDeserializer::new(list.into_iter().map(AnyCase));
                let value = visitor.visit_seq(&mut seq)?;
                seq.end()?;
                Ok(value)
            }
            Value::Object(map) => {
                visitor.visit_map(MapDeserializer::new(map.into_iter().map(|(k, v)| (k, AnyCase(v)))))
            }
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            // `null` is as good as nothing, as Go's decoder has it.
            Value::Object(map) => visitor.visit_map(MapDeserializer::new(
                map.into_iter()
                    .filter(|(_, v)| !v.is_null())
                    .map(|(k, v)| (spelled(fields.iter().copied(), &k).to_owned(), AnyCase(v))),
            )),
            other => other.deserialize_struct(name, fields, visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Deserialize, Debug, PartialEq, Default)]
    #[serde(default, rename_all = "PascalCase")]
    struct Inner {
        detach_keys: String,
        labels: BTreeMap<String, String>,
    }

    #[derive(Deserialize, Debug, PartialEq, Default)]
    #[serde(default, rename_all = "PascalCase")]
    struct Outer {
        size: Option<(u16, u16)>,
        list: Vec<Inner>,
    }

    #[test]
    fn fields_in_any_case_keys_of_maps_as_given() {
        let got: Outer = from_value(json!({
            "SIZE": [24, 80], "list": [{"detachKeys": "ctrl-a", "LABELS": {"list": "x", "Size": "y"}}], "more": 1,
        }))
        .unwrap();
        let labels = BTreeMap::from([("list".into(), "x".into()), ("Size".into(), "y".into())]);
        let inner = Inner { detach_keys: "ctrl-a".into(), labels };
        assert_eq!(got, Outer { size: Some((24, 80)), list: vec![inner] });
    }

    #[test]
    fn errors_as_serde_tells_them() {
        let error = from_value::<Outer>(json!({"Size": [1]})).unwrap_err();
        assert!(error.to_string().contains("length 1"), "{error}");
        let error = from_value::<Outer>(json!({"List": {"a": 1}})).unwrap_err();
        assert!(error.to_string().contains("expected a sequence"), "{error}");
    }
}

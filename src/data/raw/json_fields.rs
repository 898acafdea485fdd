//! Some fields of a JSON object, without building the others.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};

/// The values of the wanted fields as text; `None` for one that is missing or null, or, if `is_lenient`, no text or
/// number.
///
/// # Errors
///
/// What is wrong, if this is no JSON object or, unless `is_lenient`, a wanted field is no text or number.
pub(super) fn pick<'a>(line: &'a [u8], wanted: &[&str], is_lenient: bool) -> Result<Vec<Option<Cow<'a, str>>>, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(line);
    let mut values = vec![None; wanted.len()];
    let pick = Pick { wanted, is_lenient, values: &mut values };
    let picked = pick.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    picked.map(|()| values).map_err(|error| error.to_string())
}

/// The names of an object's fields.
pub(super) fn names(line: &[u8]) -> Result<Vec<String>, String> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(line).map_err(|error| error.to_string())?;
    Ok(object.into_iter().map(|(name, _)| name).collect())
}

struct Pick<'w, 'v, 'a> {
    wanted: &'w [&'w str],
    is_lenient: bool,
    values: &'v mut [Option<Cow<'a, str>>],
}

impl<'a> DeserializeSeed<'a> for Pick<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Pick<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key_seed(TextSeed { is_lenient: false })? {
            let is_it = |wanted: &&str| name.as_deref() == Some(*wanted);
            if !self.wanted.iter().any(is_it) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value_seed(TextSeed { is_lenient: self.is_lenient })?.0;
            // A column may serve twice, as an item's id and title.
            for (place, _) in self.wanted.iter().enumerate().filter(|(_, wanted)| is_it(wanted)) {
                self.values[place] = value.clone();
            }
        }
        Ok(())
    }
}

/// A plain value as text.
struct Text<'a>(Option<Cow<'a, str>>);

struct TextSeed {
    is_lenient: bool,
}

impl<'a> DeserializeSeed<'a> for TextSeed {
    type Value = Text<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Text<'a>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for TextSeed {
    type Value = Text<'a>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a string or a number")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Text<'a>, E> {
        Ok(Text(Some(Cow::Borrowed(text))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'a>, E> {
        Ok(Text(Some(Cow::Owned(text.to_owned()))))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Text<'a>, E> {
        Ok(Text(Some(Cow::Owned(number.to_string()))))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Text<'a>, E> {
        Ok(Text(Some(Cow::Owned(number.to_string()))))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Text<'a>, E> {
        Ok(Text(Some(Cow::Owned(number.to_string()))))
    }

    fn visit_unit<E>(self) -> Result<Text<'a>, E> {
        Ok(Text(None))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Text<'a>, E> {
        match self.is_lenient {
            true => Ok(Text(None)),
            false => Err(E::invalid_type(Unexpected::Bool(value), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<Text<'a>, A::Error> {
        if !self.is_lenient {
            return Err(A::Error::custom("expected a string or a number, found a list"));
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Text(None))
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Text<'a>, A::Error> {
        if !self.is_lenient {
            return Err(A::Error::invalid_type(Unexpected::Map, &self));
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Text(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_fields_become_text_and_others_may_be_anything() {
        let line =
            br#"{"user": "u\n1", "x": {"deep": [1, {"user": 2}]}, "time": 1500000000123, "rating": 4.5, "none": null}"#;
        let values = pick(line, &["time", "user", "rating", "none", "missing"], false).unwrap();
        let values: Vec<_> = values.iter().map(|value| value.as_deref()).collect();
        assert_eq!(values, [Some("1500000000123"), Some("u\n1"), Some("4.5"), None, None]);
        assert_eq!(pick(line, &["x", "rating"], true).unwrap(), [None, Some("4.5".into())]);
        assert_eq!(names(br#"{"b": 1, "a": 2}"#).unwrap(), ["b", "a"]);
    }

    #[test]
    fn what_is_no_object_of_plain_values_is_refused() {
        for line in
            ["", "[1]", "{\"user\": true}", "{\"user\": [1]}", "{\"user\": {}}", "{\"user\": \"u\"", "{\"user\": 1} 2"]
        {
            assert!(pick(line.as_bytes(), &["user"], false).is_err(), "{line}");
        }
    }
}

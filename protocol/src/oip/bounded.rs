//! Reading JSON whose lists and maps may be longer than anybody serves: what is beyond a limit is
//! counted and dropped while it is read, so that a body never takes a multiple of its own length.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use std::marker::PhantomData;

use crate::limits::PARAMETERS_MAX_COUNT;

/// A list of which at most `MAX` items are kept.
#[derive(Debug)]
pub(super) struct Bounded<T, const MAX: usize> {
    /// The first items.
    pub(super) items: Vec<T>,
    /// How many there were.
    pub(super) count: usize,
}

impl<T, const MAX: usize> Default for Bounded<T, MAX> {
    fn default() -> Self {
        Self { items: Vec::new(), count: 0 }
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(List(PhantomData))
    }
}

struct List<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
    type Value = Bounded<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Bounded::default();
        while list.items.len() < MAX {
            match seq.next_element()? {
                Some(item) => list.items.push(item),
                None => break,
            }
        }
        list.count = list.items.len();
        while seq.next_element::<IgnoredAny>()?.is_some() {
            list.count += 1;
        }
        Ok(list)
    }
}

/// Parameters, as many as are taken and one more; a value that is a list or a map is read as an
/// empty list, which no parameter takes.
pub(super) fn parameters<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Map<String, Value>, D::Error> {
    deserializer.deserialize_map(Parameters)
}

struct Parameters;

impl<'de> Visitor<'de> for Parameters {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of parameters")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut parameters = Map::new();
        while let Some((key, Scalar(value))) = map.next_entry::<String, Scalar>()? {
            if parameters.len() <= PARAMETERS_MAX_COUNT {
                parameters.insert(key, value);
            }
        }
        Ok(parameters)
    }
}

/// A value without anything in it.
struct Scalar(Value);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyScalar).map(Self)
    }
}

struct AnyScalar;

impl<'de> Visitor<'de> for AnyScalar {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a truth value, a number or a text")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(Vec::new()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Array(Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_a_limit_is_counted_and_dropped() {
        let list: Bounded<i64, 3> = serde_json::from_str("[1,2,3,4,5]").unwrap();
        assert_eq!((list.items, list.count), (vec![1, 2, 3], 5));
        let list: Bounded<i64, 3> = serde_json::from_str("[1]").unwrap();
        assert_eq!((list.items, list.count), (vec![1], 1));
        assert!(serde_json::from_str::<Bounded<i64, 3>>("[1,2,3,4").is_err(), "not whole");
    }

    #[test]
    fn parameters_hold_no_lists_and_not_too_many() {
        let read = |text: &str| parameters(&mut serde_json::Deserializer::from_str(text));
        let map = read(r#"{"a":1,"b":[[],[1,{"c":2}]],"c":{"d":{}},"e":"x","f":null}"#).unwrap();
        let empty = Value::Array(Vec::new());
        assert_eq!((&map["a"], &map["b"], &map["c"]), (&1.into(), &empty, &empty));
        let entries: Vec<String> = (0..1000).map(|i| format!("\"{i}\":0")).collect();
        let many = read(&format!("{{{}}}", entries.join(","))).unwrap();
        assert_eq!(many.len(), PARAMETERS_MAX_COUNT + 1, "one more than is taken, to be refused");
    }
}

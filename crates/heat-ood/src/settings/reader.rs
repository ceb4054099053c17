//! Tables as typed settings, and which fields a type has.
//!
//! One deserializer does both: every type of settings is compiled for it once.
//! It calls only what the type asked for, knows the path to what is wrong, and,
//! asked for the fields, takes them from `serde`, which names them before it
//! wants any value.

use std::cell::Cell;
use std::fmt;

use serde::de::value::MapDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::Value;

/// The names of a struct's fields.
pub(super) type Fields = &'static [&'static str];

/// What a type is read from.
#[derive(Clone, Copy)]
pub(super) enum Reader<'a> {
    /// A value.
    Value(&'a Value),
    /// Nothing: the fields of the struct at the end of the path are noted, then
    /// reading fails. Other fields on the way must have defaults, as those of
    /// all settings have.
    Fields(&'a [&'a str], &'a Cell<Option<Fields>>),
}

/// What was wrong, and the way to it, last step first.
#[derive(Debug)]
pub(super) struct Wrong {
    pub message: String,
    path: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Key(String),
    Index(usize),
}

impl Wrong {
    fn inside(mut self, step: impl FnOnce() -> Step) -> Self {
        self.path.push(step());
        self
    }

    /// The path as it is written, such as `inner.sizes[1]`.
    pub fn path(&self) -> String {
        let mut path = String::new();
        for step in self.path.iter().rev() {
            match step {
                Step::Key(key) if path.is_empty() => path += key,
                Step::Key(key) => path += &format!(".{key}"),
                Step::Index(i) => path += &format!("[{i}]"),
            }
        }
        path
    }

    /// The value at the path within `value`, if it leads anywhere.
    pub fn value<'t>(&self, value: &'t Value) -> Option<&'t Value> {
        self.path.iter().rev().try_fold(value, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::Index(i) => value.get(*i),
        })
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Wrong { message: message.to_string(), path: Vec::new() }
    }
}

impl<'a> Reader<'a> {
    /// The value, to which `expected` does not fit.
    fn value(self) -> Result<&'a Value, Wrong> {
        match self {
            Reader::Value(value) => Ok(value),
            Reader::Fields(..) => Err(Wrong::custom("only the fields were asked for")),
        }
    }
}

/// The error of a value of a wrong type.
fn wrong_type(value: &Value, expected: &dyn de::Expected) -> Wrong {
    let unexpected = match value {
        Value::String(v) => Unexpected::Str(v),
        Value::Integer(v) => Unexpected::Signed(*v),
        Value::Float(v) => Unexpected::Float(*v),
        Value::Boolean(v) => Unexpected::Bool(*v),
        Value::Datetime(_) => Unexpected::Other("datetime"),
        Value::Array(_) => Unexpected::Seq,
        Value::Table(_) => Unexpected::Map,
    };
    Wrong::invalid_type(unexpected, expected)
}

macro_rules! numbers {
    ($($method:ident),*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
                match self.value()? {
                    Value::Integer(v) => visitor.visit_i64(*v),
                    Value::Float(v) => visitor.visit_f64(*v),
                    other => Err(wrong_type(other, &visitor)),
                }
            }
        )*
    };
}

/// `1e6` is a whole number to people, and TOML's float.
macro_rules! whole_numbers {
    ($($method:ident),*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
                match self.value()? {
                    Value::Integer(v) => visitor.visit_i64(*v),
                    Value::Float(v) if v.fract() == 0.0 && v.abs() <= LARGEST_WHOLE => {
                        visitor.visit_i64(*v as i64)
                    }
                    Value::Float(v) => visitor.visit_f64(*v),
                    other => Err(wrong_type(other, &visitor)),
                }
            }
        )*
    };
}

/// Up to here every whole number is a double of its own.
const LARGEST_WHOLE: f64 = (1u64 << 53) as f64;

macro_rules! strings {
    ($($method:ident),*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
                match self.value()? {
                    Value::String(v) => visitor.visit_str(v),
                    other => Err(wrong_type(other, &visitor)),
                }
            }
        )*
    };
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Wrong;

    whole_numbers!(
        deserialize_i8,
        deserialize_i16,
        deserialize_i32,
        deserialize_i64,
        deserialize_u8,
        deserialize_u16,
        deserialize_u32,
        deserialize_u64
    );
    numbers!(deserialize_f32, deserialize_f64);
    strings!(deserialize_str, deserialize_string, deserialize_identifier);

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.value()? {
            Value::Boolean(v) => visitor.visit_bool(*v),
            other => Err(wrong_type(other, &visitor)),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.value()? {
            Value::Array(v) => visitor.visit_seq(Elements(v, 0)),
            other => Err(wrong_type(other, &visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Wrong> {
        match self.value()? {
            Value::Array(v) if v.len() > len => Err(Wrong::invalid_length(v.len(), &visitor)),
            _ => self.deserialize_seq(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.value()? {
            Value::Table(table) => visitor.visit_map(Entries { left: table.iter(), value: None }),
            other => Err(wrong_type(other, &visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: Fields,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let Reader::Fields(path, found) = self else {
            return self.deserialize_map(visitor);
        };
        let Some((key, path)) = path.split_first() else {
            found.set(Some(fields));
            return Err(Wrong::custom("the fields were asked for"));
        };
        let inside = (*key, Reader::Fields(path, found));
        visitor.visit_map(MapDeserializer::new(std::iter::once(inside)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: Fields,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match self.value()? {
            Value::String(variant) => visitor.visit_enum(variant.as_str().into_deserializer()),
            other => Err(wrong_type(other, &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.value()? {
            Value::String(v) => visitor.visit_str(v),
            Value::Integer(v) => visitor.visit_i64(*v),
            Value::Float(v) => visitor.visit_f64(*v),
            Value::Boolean(v) => visitor.visit_bool(*v),
            Value::Datetime(v) => visitor.visit_string(v.to_string()),
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Table(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { i128 u128 char bytes byte_buf unit unit_struct tuple_struct }
}

/// The elements of an array from one on.
struct Elements<'a>(&'a [Value], usize);

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Wrong> {
        let Some(value) = self.0.get(self.1) else { return Ok(None) };
        self.1 += 1;
        let read = seed.deserialize(Reader::Value(value));
        read.map(Some).map_err(|e| e.inside(|| Step::Index(self.1 - 1)))
    }
}

/// The entries of a table.
struct Entries<'a> {
    left: toml::map::Iter<'a, String, Value>,
    value: Option<(&'a str, &'a Value)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Wrong> {
        let Some((key, value)) = self.left.next() else { return Ok(None) };
        self.value = Some((key, value));
        seed.deserialize((**key).into_deserializer()).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Wrong> {
        let (key, value) = self.value.take().ok_or_else(|| Wrong::custom("a value without key"))?;
        let read = seed.deserialize(Reader::Value(value));
        read.map_err(|e| e.inside(|| Step::Key(key.to_owned())))
    }
}

impl<'de> IntoDeserializer<'de, Wrong> for Reader<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

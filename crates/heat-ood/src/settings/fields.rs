//! Which fields a type has, asked of the type itself: `serde` gives them to a
//! deserializer before it wants any value.

use std::cell::Cell;

use serde::de::value::{Error, MapDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

/// The fields of the struct at `path` within a `T`; `None` where there is
/// something else, such as a number or a list.
///
/// The other fields of the structs on the way must have defaults, as those of
/// all settings have.
pub(super) fn fields_at<T: DeserializeOwned>(path: &[&str]) -> Option<&'static [&'static str]> {
    let found = Cell::new(None);
    // There is no value to be had, only the fields.
    let _ = T::deserialize(Probe { path, found: &found });
    found.get()
}

/// Goes down along a path and notes the fields of the struct at its end.
#[derive(Clone, Copy)]
struct Probe<'a> {
    path: &'a [&'a str],
    found: &'a Cell<Option<&'static [&'static str]>>,
}

fn end<T>() -> Result<T, Error> {
    Err(Error::custom("only the fields were asked for"))
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Some((key, path)) = self.path.split_first() else {
            self.found.set(Some(fields));
            return end();
        };
        let inside = Probe { path, ..self };
        visitor.visit_map(MapDeserializer::new(std::iter::once((*key, inside))))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        end()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for Probe<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

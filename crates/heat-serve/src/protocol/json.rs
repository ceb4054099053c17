//! The JSON of a request, read in one pass: what is known is kept where it stands in the body, all
//! else is passed over without being built. However a body is written, what it takes in memory
//! besides its values is bounded here.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::parameters::{Given, LONGEST_SETTING, Setting};

/// Most tensors of a request.
pub const MOST_INPUTS: usize = 64;

/// Most outputs that a request names.
pub const MOST_OUTPUTS: usize = 1024;

/// Most sides of a tensor's shape.
pub const MOST_SIDES: usize = 8;

/// Longest name, in bytes.
pub const LONGEST_NAME: usize = 1024;

/// A request. Unknown keys are let pass: clients send some of their own.
#[derive(Default)]
pub struct Body<'a> {
    pub id: Option<&'a RawValue>,
    pub parameters: Option<Given>,
    pub inputs: Option<Few<Tensor<'a>, MOST_INPUTS>>,
    pub outputs: Option<Few<Output<'a>, MOST_OUTPUTS>>,
}

/// A tensor as it is described, whose values are here or after the JSON.
#[derive(Default)]
pub struct Tensor<'a> {
    pub name: Option<&'a RawValue>,
    pub shape: Option<Few<&'a RawValue, MOST_SIDES>>,
    pub datatype: Option<&'a RawValue>,
    pub parameters: Option<Given>,
    pub data: Option<&'a RawValue>,
}

/// An output that is asked for.
#[derive(Default)]
pub struct Output<'a> {
    pub name: Option<&'a RawValue>,
    pub parameters: Option<Given>,
}

/// What is written as a JSON object.
trait Object<'a>: Default {
    /// What was expected where something else stands.
    const EXPECTED: &'static str;

    /// Keep the value of a key; false where nobody knows it, and it was not read.
    fn keep<M: MapAccess<'a>>(&mut self, key: &str, map: &mut M) -> Result<bool, M::Error>;
}

impl<'a> Object<'a> for Body<'a> {
    const EXPECTED: &'static str = "an object with `inputs`";

    fn keep<M: MapAccess<'a>>(&mut self, key: &str, map: &mut M) -> Result<bool, M::Error> {
        match key {
            "id" => once(&mut self.id, key, map),
            "parameters" => once(&mut self.parameters, key, map),
            "inputs" => once(&mut self.inputs, key, map),
            "outputs" => once(&mut self.outputs, key, map),
            _ => Ok(false),
        }
    }
}

impl<'a> Object<'a> for Tensor<'a> {
    const EXPECTED: &'static str = "an object with `name`, `shape`, `datatype` and `data`";

    fn keep<M: MapAccess<'a>>(&mut self, key: &str, map: &mut M) -> Result<bool, M::Error> {
        match key {
            "name" => once(&mut self.name, key, map),
            "shape" => once(&mut self.shape, key, map),
            "datatype" => once(&mut self.datatype, key, map),
            "parameters" => once(&mut self.parameters, key, map),
            "data" => once(&mut self.data, key, map),
            _ => Ok(false),
        }
    }
}

impl<'a> Object<'a> for Output<'a> {
    const EXPECTED: &'static str = "an object with `name`";

    fn keep<M: MapAccess<'a>>(&mut self, key: &str, map: &mut M) -> Result<bool, M::Error> {
        match key {
            "name" => once(&mut self.name, key, map),
            "parameters" => once(&mut self.parameters, key, map),
            _ => Ok(false),
        }
    }
}

impl<'a> Object<'a> for Given {
    const EXPECTED: &'static str = "an object of parameters";

    fn keep<M: MapAccess<'a>>(&mut self, key: &str, map: &mut M) -> Result<bool, M::Error> {
        let Some(key) = Given::known(key) else { return Ok(false) };
        let value: &RawValue = map.next_value()?;
        self.set(key, setting(value)).map_err(Error::custom)?;
        Ok(true)
    }
}

/// A key's value, which may stand there once. `null` is nothing.
fn once<'a, T: Deserialize<'a>, M: MapAccess<'a>>(
    to: &mut Option<T>,
    key: &str,
    map: &mut M,
) -> Result<bool, M::Error> {
    if to.is_some() {
        return Err(Error::custom(format_args!("`{key}` is given twice")));
    }
    *to = map.next_value()?;
    Ok(true)
}

struct Reader<T>(PhantomData<T>);

impl<'a, T: Object<'a>> Visitor<'a> for Reader<T> {
    type Value = T;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(T::EXPECTED)
    }

    // Serde's own words would quote it whole, however long it is.
    fn visit_str<E: Error>(self, _: &str) -> Result<T, E> {
        Err(E::custom(format_args!("a string, expected {}", T::EXPECTED)))
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<T, M::Error> {
        let mut object = T::default();
        // Raw: a key that is built may be as long as the body.
        while let Some(key) = map.next_key::<&RawValue>()? {
            let known = match text(key, LONGEST_NAME) {
                Ok(key) => object.keep(&key, &mut map)?,
                Err(_) => false,
            };
            if !known {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(object)
    }
}

macro_rules! objects {
    ($($object:ty),*) => {$(
        impl<'a> Deserialize<'a> for $object {
            fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(Reader(PhantomData))
            }
        }
    )*};
}

objects!(Body<'a>, Tensor<'a>, Output<'a>, Given);

/// An array of no more than `MOST` elements.
pub struct Few<T, const MOST: usize>(pub Vec<T>);

impl<'a, T: Deserialize<'a>, const MOST: usize> Deserialize<'a> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        struct Elements<T, const MOST: usize>(PhantomData<T>);

        impl<'a, T: Deserialize<'a>, const MOST: usize> Visitor<'a> for Elements<T, MOST> {
            type Value = Few<T, MOST>;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(to, "an array of at most {MOST} elements")
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
                Err(E::custom(format_args!(
                    "a string, expected an array of at most {MOST} elements"
                )))
            }

            fn visit_seq<S: SeqAccess<'a>>(self, mut from: S) -> Result<Self::Value, S::Error> {
                let mut all = Vec::new();
                while let Some(one) = from.next_element()? {
                    if all.len() == MOST {
                        return Err(Error::invalid_length(MOST + 1, &self));
                    }
                    all.push(one);
                }
                Ok(Few(all))
            }
        }

        from.deserialize_any(Elements(PhantomData))
    }
}

/// A string of at most `longest` bytes.
///
/// # Errors
/// If it is none: what it is, instead.
pub fn text(raw: &RawValue, longest: usize) -> Result<Cow<'_, str>, String> {
    let written = raw.get();
    if !written.starts_with('"') {
        return Err("is no string".into());
    }
    let long = || format!("is longer than {longest} bytes");
    // No byte takes more than six, as an escape.
    if written.len() > 6 * longest + 2 {
        return Err(long());
    }
    let text: Cow<'_, str> = match serde_json::from_str::<&str>(written) {
        Ok(text) => text.into(),
        Err(_) => serde_json::from_str::<String>(written)
            .map_err(|_| "is a string that is no text")?
            .into(),
    };
    match text.len() <= longest {
        true => Ok(text),
        false => Err(long()),
    }
}

/// The value of a parameter.
fn setting(raw: &RawValue) -> Setting {
    let written = raw.get();
    match written {
        "true" => return Setting::Flag(true),
        "false" => return Setting::Flag(false),
        _ => {}
    }
    if let Ok(text) = text(raw, LONGEST_SETTING) {
        return Setting::Text(text.into_owned());
    }
    let number = match written.len() <= LONGEST_SETTING {
        true => serde_json::from_str(written).ok(),
        false => None,
    };
    number.map_or(Setting::Other, Setting::Number)
}

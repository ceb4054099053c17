//! The encoding of gRPC's messages: fields, each a number and a value. Two bytes of a message can
//! become a hundred in memory, so that a request is looked at before it is decoded, and the values
//! of its tensors are read from where they are.

use super::json::{LONGEST_NAME, MOST_INPUTS, MOST_OUTPUTS, MOST_SIDES};
use super::{Datatype, Values};
use crate::refusal::{Refusal, Result};

/// Most parameters of a request with its tensors and outputs, and bytes of each.
const MOST_PARAMETERS: usize = 256;
const LONGEST_PARAMETER: usize = 4 << 10;

/// Bytes of a number at most, where it takes as many as it needs.
const LONGEST_VARINT: usize = 10;

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Field<'a> {
    /// A whole number.
    Varint(u64),
    /// Eight bytes.
    Eight([u8; 8]),
    /// As many bytes as are said.
    Bytes(&'a [u8]),
    /// Four bytes.
    Four([u8; 4]),
}

fn damaged() -> Refusal {
    Refusal::invalid("the message is damaged: it ends within a field, or has one of no known kind")
}

/// A number that takes as many bytes as it needs.
pub fn varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for i in 0..LONGEST_VARINT {
        let (byte, after) = rest.split_first().ok_or_else(damaged)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(damaged())
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N]> {
    let (own, after) = rest.split_first_chunk().ok_or_else(damaged)?;
    *rest = after;
    Ok(own)
}

/// The fields of a message in their order.
///
/// # Errors
/// If it is damaged. Groups, which nobody sends any more, are counted as damage.
pub fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u64, Field<'_>)>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut next = || {
            let key = varint(&mut rest)?;
            let field = match key & 7 {
                0 => Field::Varint(varint(&mut rest)?),
                1 => Field::Eight(*take(&mut rest)?),
                2 => {
                    let length = usize::try_from(varint(&mut rest)?).map_err(|_| damaged())?;
                    let (own, after) = rest.split_at_checked(length).ok_or_else(damaged)?;
                    rest = after;
                    Field::Bytes(own)
                }
                5 => Field::Four(*take(&mut rest)?),
                _ => return Err(damaged()),
            };
            Ok((key >> 3, field))
        };
        let found = next();
        if found.is_err() {
            rest = &[];
        }
        Some(found)
    })
}

/// Counts that a message may not exceed.
struct Most(usize, usize, &'static str);

impl Most {
    fn add(&mut self, more: usize) -> Result<()> {
        self.0 += more;
        match self.0 <= self.1 {
            true => Ok(()),
            false => Err(Refusal::invalid(format!("more than {} {}", self.1, self.2))),
        }
    }
}

fn is_short(value: &[u8], longest: usize, what: &str) -> Result<()> {
    match value.len() <= longest {
        true => Ok(()),
        false => Err(Refusal::invalid(format!("{what} is longer than {longest} bytes"))),
    }
}

/// Look at a `ModelInferRequest` before it is decoded.
///
/// # Errors
/// If it is damaged, or has more of anything than a request may have.
pub fn check_request(message: &[u8]) -> Result<()> {
    let mut parameters = Most(0, MOST_PARAMETERS, "parameters");
    let mut inputs = Most(0, MOST_INPUTS, "inputs");
    let mut outputs = Most(0, MOST_OUTPUTS, "outputs");
    let mut raw = Most(0, MOST_INPUTS, "raw contents");
    for field in fields(message) {
        let (number, Field::Bytes(value)) = field? else { continue };
        match number {
            1 | 2 => is_short(value, LONGEST_NAME, "the name of the model or of its version")?,
            3 => is_short(value, LONGEST_NAME, "`id`")?,
            4 => parameter(value, &mut parameters)?,
            5 => {
                inputs.add(1)?;
                check_tensor(value, &mut parameters)?;
            }
            6 => {
                outputs.add(1)?;
                check_output(value, &mut parameters)?;
            }
            7 => raw.add(1)?,
            _ => {}
        }
    }
    Ok(())
}

fn parameter(value: &[u8], parameters: &mut Most) -> Result<()> {
    is_short(value, LONGEST_PARAMETER, "a parameter")?;
    parameters.add(1)
}

fn check_tensor(message: &[u8], parameters: &mut Most) -> Result<()> {
    let mut sides = Most(0, MOST_SIDES, "sides of a shape");
    for field in fields(message) {
        match field? {
            (1 | 2, Field::Bytes(value)) => {
                is_short(value, LONGEST_NAME, "the name or datatype of an input")?;
            }
            (3, Field::Varint(_)) => sides.add(1)?,
            (3, Field::Bytes(packed)) => sides.add(count_varints(packed))?,
            (4, Field::Bytes(value)) => parameter(value, parameters)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_output(message: &[u8], parameters: &mut Most) -> Result<()> {
    for field in fields(message) {
        match field? {
            (1, Field::Bytes(value)) => is_short(value, LONGEST_NAME, "the name of an output")?,
            (2, Field::Bytes(value)) => parameter(value, parameters)?,
            _ => {}
        }
    }
    Ok(())
}

/// The last byte of each has its first bit 0.
fn count_varints(packed: &[u8]) -> usize {
    packed.iter().filter(|byte| *byte & 0x80 == 0).count()
}

/// The values of an `InferTensorContents`, of the field that is for the tensor's type; `None` where
/// there is no such field.
///
/// # Errors
/// If it is damaged, a value is too large, or there is no memory for them.
pub fn values(
    kind: Datatype,
    contents: &[u8],
    reserve: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Option<Values>> {
    Ok(Some(match kind {
        Datatype::Fp32 => {
            let all = of_size(contents, 6, f32::from_le_bytes, reserve)?;
            Values::Floats(all)
        }
        Datatype::Fp64 => {
            let all = of_size(contents, 7, |b| f64::from_le_bytes(b) as f32, reserve)?;
            Values::Floats(all)
        }
        Datatype::Uint8 => Values::Bytes(bytes(contents, reserve)?),
        Datatype::Bytes => Values::Texts(texts(contents, reserve)?),
        _ => return Ok(None),
    }))
}

/// Those of a field, one by one or many together.
fn of_number(contents: &[u8], wanted: u64) -> impl Iterator<Item = Result<Field<'_>>> {
    let of_wanted = move |field| match field {
        Ok((number, field)) => (number == wanted).then_some(Ok(field)),
        Err(refused) => Some(Err(refused)),
    };
    fields(contents).filter_map(of_wanted)
}

fn of_size<const N: usize>(
    contents: &[u8],
    number: u64,
    of: impl Fn([u8; N]) -> f32,
    reserve: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<f32>> {
    let mut count = 0;
    for field in of_number(contents, number) {
        count += match field? {
            Field::Bytes(packed) if packed.len().is_multiple_of(N) => packed.len() / N,
            Field::Four(_) if N == 4 => 1,
            Field::Eight(_) if N == 8 => 1,
            _ => return Err(damaged()),
        };
    }
    reserve(4 * count)?;
    let mut all = Vec::with_capacity(count);
    for field in of_number(contents, number) {
        let field = field?;
        let own = match &field {
            Field::Bytes(packed) => *packed,
            Field::Four(own) => &own[..],
            Field::Eight(own) => &own[..],
            Field::Varint(_) => &[],
        };
        all.extend(own.as_chunks().0.iter().map(|chunk| of(*chunk)));
    }
    Ok(all)
}

fn bytes(contents: &[u8], reserve: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<u8>> {
    let mut count = 0;
    for field in of_number(contents, 4) {
        count += match field? {
            Field::Bytes(packed) => count_varints(packed),
            Field::Varint(_) => 1,
            _ => return Err(damaged()),
        };
    }
    reserve(count)?;
    let byte = |value: u64| {
        let expected = || Refusal::invalid("a value above 255 in contents of UINT8");
        u8::try_from(value).map_err(|_| expected())
    };
    let mut all = Vec::with_capacity(count);
    for field in of_number(contents, 4) {
        match field? {
            Field::Bytes(mut packed) => {
                while !packed.is_empty() {
                    all.push(byte(varint(&mut packed)?)?);
                }
            }
            Field::Varint(value) => all.push(byte(value)?),
            _ => return Err(damaged()),
        }
    }
    Ok(all)
}

fn texts(contents: &[u8], reserve: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<Vec<u8>>> {
    let (mut count, mut size) = (0, 0);
    for field in of_number(contents, 8) {
        let Field::Bytes(own) = field? else { return Err(damaged()) };
        (count, size) = (count + 1, size + own.len());
    }
    reserve(size + count * size_of::<Vec<u8>>())?;
    let mut all = Vec::with_capacity(count);
    for field in of_number(contents, 8) {
        let Field::Bytes(own) = field? else { return Err(damaged()) };
        all.push(own.to_vec());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values_of(kind: Datatype, contents: &[u8]) -> Result<Option<Values>> {
        values(kind, contents, &mut |_| Ok(()))
    }

    /// Bytes as the format's description has them: <https://protobuf.dev/programming-guides/encoding>,
    /// whose example is 150 in field 1, `08 96 01`.
    #[test]
    fn fields_of_a_message() {
        let all: Result<Vec<_>> =
            fields(&[0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x35, 0, 0, 0, 0x40]).collect();
        let want =
            [(1, Field::Varint(150)), (2, Field::Bytes(b"hi")), (6, Field::Four([0, 0, 0, 0x40]))];
        assert_eq!(all.unwrap(), want);
        // Cut short, a number without an end, a group, a kind that there is not.
        for wrong in [&[0x08][..], &[0x12, 3, b'h'], &[0x35, 0], &[0xff; 11], &[0x0b], &[0x0f]] {
            assert!(fields(wrong).any(|field| field.is_err()), "{wrong:?}");
        }
    }

    #[test]
    fn values_packed_or_not() {
        let two = 2.0f32.to_le_bytes();
        let packed = [&[0x32, 8][..], &two, &two].concat();
        let single = [&[0x35][..], &two, &[0x35], &two].concat();
        for contents in [&packed, &single] {
            let got = values_of(Datatype::Fp32, contents).unwrap();
            assert_eq!(got, Some(Values::Floats(vec![2.0, 2.0])));
        }
        let double = [&[0x39][..], &0.5f64.to_le_bytes()].concat();
        let got = values_of(Datatype::Fp64, &double).unwrap();
        assert_eq!(got, Some(Values::Floats(vec![0.5])));
        let got = values_of(Datatype::Uint8, &[0x22, 3, 7, 0xff, 1, 0x20, 9]).unwrap();
        assert_eq!(got, Some(Values::Bytes(vec![7, 255, 9])));
        assert!(values_of(Datatype::Uint8, &[0x20, 0x80, 2]).unwrap_err().text.contains("255"));
        let got = values_of(Datatype::Bytes, &[0x42, 1, b'a', 0x42, 0]).unwrap();
        assert_eq!(got, Some(Values::Texts(vec![b"a".to_vec(), Vec::new()])));
        assert_eq!(values_of(Datatype::Fp16, &packed).unwrap(), None);
        // No whole number of values; a value of another width.
        assert!(values_of(Datatype::Fp32, &[0x32, 3, 0, 0, 0]).is_err());
        let wide = [&[0x31][..], &0.5f64.to_le_bytes()].concat();
        assert_eq!(values_of(Datatype::Fp32, &wide).unwrap_err().kind, damaged().kind);
    }

    /// What two bytes of a message would become in memory is not made.
    #[test]
    fn more_than_a_request_may_have() {
        let field =
            |number: u8, value: &[u8]| [&[number << 3 | 2, value.len() as u8], value].concat();
        let many = |one: &[u8], times: usize| one.repeat(times);
        let of_input = |inner: &[u8]| {
            let length = [(inner.len() as u8 & 0x7f) | 0x80, (inner.len() >> 7) as u8];
            [&[0x2a][..], &length, inner].concat()
        };
        for (message, part) in [
            (many(&[0x2a, 0], 65), "more than 64 inputs"),
            (many(&[0x32, 0], 1025), "more than 1024 outputs"),
            (many(&[0x3a, 0], 65), "more than 64 raw contents"),
            (many(&field(4, &[0x0a, 1, b'a']), 257), "more than 256 parameters"),
            (of_input(&many(&field(4, &[0x0a, 1, b'a']), 257)), "more than 256 parameters"),
            (many(&field(6, &field(2, &[0x0a, 1, b'a'])), 257), "more than 256 parameters"),
            (of_input(&field(3, &[1; 9])), "more than 8 sides"),
            (of_input(&many(&[0x18, 1], 9)), "more than 8 sides"),
            (of_input(&[&[0x0a, 0x81, 8][..], &[b'x'; 1025]].concat()), "longer than 1024 bytes"),
            ([&[0x0a, 0x81, 8][..], &[b'x'; 1025]].concat(), "longer than 1024 bytes"),
            (of_input(&[0x0b]), "damaged"),
        ] {
            let text = check_request(&message).unwrap_err().text;
            assert!(text.contains(part), "{part}: {text}");
        }
        let sound = [many(&[0x2a, 0], 64), many(&[0x32, 0], 1024), of_input(&[])[..0].to_vec()];
        check_request(&sound.concat()).unwrap();
    }
}

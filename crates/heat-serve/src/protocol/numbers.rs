//! The `data` of a tensor in JSON: numbers or strings, nested or flat, in row-major order.
//!
//! Numbers are read from their digits to single precision at once: to double precision first
//! would round twice.

use std::str::FromStr;

use base64::Engine;

use crate::refusal::{Refusal, Result};

/// One value of an array, as it stands there.
enum Leaf<'a> {
    Number(&'a str),
    /// With its quotes.
    Text(&'a str),
    Other(&'a str),
}

/// The `data` of an input.
#[derive(Clone, Copy)]
pub struct Data<'a> {
    /// The name of the input.
    pub name: &'a str,
    /// The array, which is valid JSON.
    pub text: &'a str,
    /// Sides of the tensor.
    pub shape: &'a [usize],
}

impl Data<'_> {
    fn wrong(&self, problem: impl std::fmt::Display) -> Refusal {
        Refusal::invalid(format!("the input `{}`: {problem}", self.name))
    }

    fn unwelcome(&self, leaf: &Leaf<'_>, i: usize, wanted: &str) -> Refusal {
        let value = match leaf {
            Leaf::Number(text) | Leaf::Text(text) | Leaf::Other(text) => text,
        };
        let value: String = value.chars().take(40).collect();
        let refused = self.wrong(format_args!("element {i} is {value}, expected {wanted}"));
        let unquoted = self.wrong(format_args!("element {i} is not {wanted}"));
        refused.unquoted(unquoted.text)
    }

    /// Room for as many values as the text can hold, of so many bytes each at least: a shape is only
    /// a claim.
    fn room(&self, each: usize) -> usize {
        self.shape.iter().product::<usize>().min(self.text.len() / each)
    }
}

/// Call `take` with every value of the array: flat, or nested as deep as the shape is long.
fn walk<'a>(data: Data<'a>, mut take: impl FnMut(usize, Leaf<'a>) -> Result<()>) -> Result<()> {
    let Data { text, shape, .. } = data;
    let bytes = text.as_bytes();
    let total: usize = shape.iter().product();
    // Elements of each open array.
    let mut open: Vec<usize> = Vec::with_capacity(shape.len());
    let mut leaves_at = None;
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b' ' | b'\t' | b'\n' | b'\r' | b',' => at += 1,
            b'[' => {
                if let Some(outer) = open.last_mut() {
                    *outer += 1;
                }
                if open.len() >= shape.len().max(1) || leaves_at.is_some_and(|d| open.len() >= d) {
                    let problem = format!("arrays nested deeper than the shape {shape:?}");
                    return Err(data.wrong(problem));
                }
                open.push(0);
                at += 1;
            }
            b']' => {
                let depth = open.len();
                let got = open.pop().unwrap_or_default();
                let flat = depth == 1 && leaves_at == Some(1) && shape.len() != 1;
                let want = if flat { total } else { shape.get(depth - 1).copied().unwrap_or(0) };
                if got != want {
                    let what = match flat {
                        true => format!("{got} values"),
                        false => format!("an array of {got} elements"),
                    };
                    let problem = format_args!("{what} where the shape {shape:?} has {want}");
                    return Err(data.wrong(problem));
                }
                at += 1;
            }
            first => {
                let end = match first {
                    b'"' => end_of_text(bytes, at),
                    b'{' => bytes.len(),
                    _ => {
                        let rest = &bytes[at..];
                        let stop = |b: &u8| matches!(b, b',' | b']' | b' ' | b'\t' | b'\n' | b'\r');
                        at + rest.iter().position(stop).unwrap_or(rest.len())
                    }
                };
                let Some(outer) = open.last_mut() else {
                    return Err(data.wrong("`data` is no array"));
                };
                *outer += 1;
                let depth = open.len();
                if *leaves_at.get_or_insert(depth) != depth || (depth != 1 && depth != shape.len())
                {
                    let problem =
                        format_args!("values at another depth than the shape {shape:?} has");
                    return Err(data.wrong(problem));
                }
                let value = &text[at..end];
                let leaf = match first {
                    b'"' => Leaf::Text(value),
                    b'-' | b'0'..=b'9' => Leaf::Number(value),
                    _ => Leaf::Other(value),
                };
                if count >= total {
                    let problem =
                        format_args!("more than the {total} values of the shape {shape:?}");
                    return Err(data.wrong(problem));
                }
                take(count, leaf)?;
                count += 1;
                at = end;
            }
        }
    }
    match count == total {
        true => Ok(()),
        false => {
            let problem = format_args!("{count} values where the shape {shape:?} has {total}");
            Err(data.wrong(problem))
        }
    }
}

/// The end of the string that begins at `at`, after its quote.
fn end_of_text(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < bytes.len() {
        match bytes[end] {
            b'\\' => end += 2,
            b'"' => return end + 1,
            _ => end += 1,
        }
    }
    bytes.len()
}

/// Finite numbers in single precision.
pub fn floats(data: Data<'_>) -> Result<Vec<f32>> {
    let mut out = Vec::with_capacity(data.room(2));
    walk(data, |i, leaf| {
        let Leaf::Number(digits) = leaf else {
            return Err(data.unwelcome(&leaf, i, "a number"));
        };
        let value = f32::from_str(digits).map_err(|_| data.unwelcome(&leaf, i, "a number"))?;
        if !value.is_finite() {
            return Err(data.unwelcome(&leaf, i, "a number of single precision"));
        }
        out.push(value);
        Ok(())
    })?;
    Ok(out)
}

/// Whole numbers from 0 to 255.
pub fn bytes(data: Data<'_>) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(data.room(2));
    walk(data, |i, leaf| {
        let value = match leaf {
            Leaf::Number(digits) => u8::from_str(digits).ok(),
            _ => None,
        };
        let wanted = "a whole number from 0 to 255";
        out.push(value.ok_or_else(|| data.unwelcome(&leaf, i, wanted))?);
        Ok(())
    })?;
    Ok(out)
}

/// Bytes written as text in base 64.
pub fn texts(data: Data<'_>) -> Result<Vec<Vec<u8>>> {
    let mut out = Vec::with_capacity(data.room(3));
    walk(data, |i, leaf| {
        let unwelcome = || data.unwelcome(&leaf, i, "a string in base 64");
        let Leaf::Text(quoted) = leaf else {
            return Err(unwelcome());
        };
        let decode = |plain: &str| base64::engine::general_purpose::STANDARD.decode(plain);
        // Without escapes it is decoded from where it stands.
        let bytes = match serde_json::from_str::<&str>(quoted) {
            Ok(plain) => decode(plain),
            Err(_) => decode(&serde_json::from_str::<String>(quoted).map_err(|_| unwelcome())?),
        };
        out.push(bytes.map_err(|_| unwelcome())?);
        Ok(())
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data<'a>(text: &'a str, shape: &'a [usize]) -> Data<'a> {
        Data { name: "x", text, shape }
    }

    #[test]
    fn nested_or_flat() {
        let want = [1.0, -2.5, 3e-3, 4.0];
        for text in ["[1,-2.5,3e-3,4]", "[[1,-2.5],[3E-3,4]]", " [ [1 , -2.5 ] ,\n[3e-3,4.0]] "] {
            assert_eq!(floats(data(text, &[2, 2])).unwrap(), want, "{text}");
        }
        assert_eq!(floats(data("[7]", &[1])).unwrap(), [7.0]);
        assert_eq!(bytes(data("[[[[0,255,1]]]]", &[1, 1, 1, 3])).unwrap(), [0, 255, 1]);
        assert_eq!(texts(data(r#"["YWJj","\u0059Q=="]"#, &[2])).unwrap(), [&b"abc"[..], b"a"]);
    }

    /// 16777217 + 2⁻³⁰ lies just above the middle of two single precision numbers, and
    /// double precision rounds it to the middle, from where it goes down.
    #[test]
    fn digits_are_rounded_once() {
        let text = "[16777217.000000001]";
        assert_eq!(floats(data(text, &[1])).unwrap(), [16_777_218.0]);
        assert_eq!("16777217.000000001".parse::<f64>().unwrap() as f32, 16_777_216.0);
    }

    #[test]
    fn what_is_no_such_array_is_refused() {
        for (text, shape, part) in [
            ("[1,2,3]", &[2, 2][..], "3 values"),
            ("[1,2,3,4,5]", &[2, 2], "more than the 4"),
            ("[[1,2],[3]]", &[2, 2], "array of 1 elements"),
            ("[[1,2]]", &[2, 2], "array of 1 elements"),
            ("[[1],[2],[3],[4]]", &[2, 2], "array of 1 elements"),
            ("[[[1,2]]]", &[1, 2], "deeper"),
            ("[[1,2],3,4]", &[2, 2], "another depth"),
            ("[1,[2,3,4]]", &[2, 2], "deeper"),
            ("[1,\"2\"]", &[2], "element 1 is \"2\""),
            ("[1,null]", &[2], "element 1 is null"),
            ("[true,1]", &[2], "element 0 is true"),
            ("[{\"a\":1},1]", &[2], "element 0 is {"),
            ("[1e999,1]", &[2], "element 0 is 1e999"),
            ("1", &[1], "is no array"),
            ("[]", &[1], "array of 0 elements"),
        ] {
            let error = floats(data(text, shape)).unwrap_err();
            assert!(!error.for_log().contains("1e999") && !error.for_log().contains("null"));
            let error = error.text;
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(bytes(data("[256]", &[1])).is_err() && bytes(data("[1.5]", &[1])).is_err());
        assert!(bytes(data("[-1]", &[1])).is_err() && texts(data("[\"!\"]", &[1])).is_err());
    }
}

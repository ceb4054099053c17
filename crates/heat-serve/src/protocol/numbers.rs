//! The `data` of a tensor in JSON: numbers or strings, nested or flat, in row-major order.
//!
//! Numbers are read from their digits to single precision at once: to double precision first
//! would round twice.

use std::str::FromStr;

use base64::Engine;

/// One value of an array, as it stands there.
enum Leaf<'a> {
    Number(&'a str),
    /// With its quotes.
    Text(&'a str),
    Other(&'a str),
}

/// Call `take` with every value of the array `text`, which is valid JSON, of that shape: flat, or
/// nested as deep as the shape is long.
fn walk<'a>(
    text: &'a str,
    shape: &[usize],
    mut take: impl FnMut(usize, Leaf<'a>) -> Result<(), String>,
) -> Result<(), String> {
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
                    return Err(format!("arrays nested deeper than the shape {shape:?}"));
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
                    return Err(format!("{what} where the shape {shape:?} has {want}"));
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
                    return Err("expected an array".into());
                };
                *outer += 1;
                let depth = open.len();
                if *leaves_at.get_or_insert(depth) != depth || (depth != 1 && depth != shape.len())
                {
                    return Err(format!("values at another depth than the shape {shape:?} has"));
                }
                let value = &text[at..end];
                let leaf = match first {
                    b'"' => Leaf::Text(value),
                    b'-' | b'0'..=b'9' => Leaf::Number(value),
                    _ => Leaf::Other(value),
                };
                if count >= total {
                    return Err(format!("more than the {total} values of the shape {shape:?}"));
                }
                take(count, leaf)?;
                count += 1;
                at = end;
            }
        }
    }
    match count == total {
        true => Ok(()),
        false => Err(format!("{count} values where the shape {shape:?} has {total}")),
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

fn unwelcome(leaf: &Leaf<'_>, i: usize, wanted: &str) -> String {
    let value = match leaf {
        Leaf::Number(text) | Leaf::Text(text) | Leaf::Other(text) => text,
    };
    let value: String = value.chars().take(40).collect();
    format!("element {i} is {value}, expected {wanted}")
}

/// Room for as many values as the text can hold: a shape is only a claim.
fn room(text: &str, shape: &[usize]) -> usize {
    shape.iter().product::<usize>().min(text.len() / 2)
}

/// Finite numbers in single precision.
pub fn floats(text: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
    let mut out = Vec::with_capacity(room(text, shape));
    walk(text, shape, |i, leaf| {
        let Leaf::Number(digits) = leaf else {
            return Err(unwelcome(&leaf, i, "a number"));
        };
        let value = f32::from_str(digits).map_err(|_| unwelcome(&leaf, i, "a number"))?;
        if !value.is_finite() {
            return Err(unwelcome(&leaf, i, "a number of single precision"));
        }
        out.push(value);
        Ok(())
    })?;
    Ok(out)
}

/// Whole numbers from 0 to 255.
pub fn bytes(text: &str, shape: &[usize]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(room(text, shape));
    walk(text, shape, |i, leaf| {
        let value = match leaf {
            Leaf::Number(digits) => u8::from_str(digits).ok(),
            _ => None,
        };
        out.push(value.ok_or_else(|| unwelcome(&leaf, i, "a whole number from 0 to 255"))?);
        Ok(())
    })?;
    Ok(out)
}

/// Bytes written as text in base 64.
pub fn texts(text: &str, shape: &[usize]) -> Result<Vec<Vec<u8>>, String> {
    let mut out = Vec::with_capacity(room(text, shape));
    walk(text, shape, |i, leaf| {
        let wanted = "a string in base 64";
        let Leaf::Text(quoted) = leaf else {
            return Err(unwelcome(&leaf, i, wanted));
        };
        let plain: String =
            serde_json::from_str(quoted).map_err(|_| unwelcome(&leaf, i, wanted))?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(plain);
        out.push(bytes.map_err(|_| unwelcome(&leaf, i, wanted))?);
        Ok(())
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_or_flat() {
        let want = [1.0, -2.5, 3e-3, 4.0];
        for text in ["[1,-2.5,3e-3,4]", "[[1,-2.5],[3E-3,4]]", " [ [1 , -2.5 ] ,\n[3e-3,4.0]] "] {
            assert_eq!(floats(text, &[2, 2]).unwrap(), want, "{text}");
        }
        assert_eq!(floats("[7]", &[1]).unwrap(), [7.0]);
        assert_eq!(bytes("[[[[0,255,1]]]]", &[1, 1, 1, 3]).unwrap(), [0, 255, 1]);
        assert_eq!(texts(r#"["YWJj","\u0059Q=="]"#, &[2]).unwrap(), [&b"abc"[..], b"a"]);
    }

    /// 16777217 + 2⁻³⁰ lies just above the middle of two single precision numbers, and
    /// double precision rounds it to the middle, from where it goes down.
    #[test]
    fn digits_are_rounded_once() {
        let text = "[16777217.000000001]";
        assert_eq!(floats(text, &[1]).unwrap(), [16_777_218.0]);
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
            ("1", &[1], "expected an array"),
            ("[]", &[1], "array of 0 elements"),
        ] {
            let error = floats(text, shape).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(bytes("[256]", &[1]).is_err() && bytes("[1.5]", &[1]).is_err());
        assert!(bytes("[-1]", &[1]).is_err() && texts("[\"!\"]", &[1]).is_err());
    }
}

//! The header of an `.npy` file: a dictionary of three keys as Python writes it, without escapes.

/// Longest header taken seriously: numpy's own is 128 bytes.
pub(super) const MAX_SIZE: usize = 1 << 16;

const DAMAGED: &str = "not an .npy array, or its header is damaged";
const STRUCTURED: &str = "a structured array; save one plain matrix per array";

/// What a file says of its array.
#[derive(Debug, PartialEq)]
pub struct Header {
    /// Type of the elements, such as `<f4`.
    pub kind: String,
    /// Whether columns lie one after the other (`fortran_order`).
    pub by_column: bool,
    /// Its product is below 2⁶³, were every zero a one.
    pub shape: Vec<usize>,
    /// Bytes up to the elements.
    pub size: usize,
}

impl Header {
    /// Read it from the beginning of a file.
    ///
    /// # Errors
    /// If it is none, or of a structured array.
    pub fn read(file: &[u8]) -> Result<Header, &'static str> {
        let (start, length) = match file {
            [0x93, b'N', b'U', b'M', b'P', b'Y', 1, 0, a, b, ..] => {
                (10, u16::from_le_bytes([*a, *b]).into())
            }
            [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, 0, a, b, c, d, ..] => {
                (12, u32::from_le_bytes([*a, *b, *c, *d]))
            }
            _ => return Err(DAMAGED),
        };
        let size = (length as usize).saturating_add(start);
        let text = file.get(start..size).filter(|_| size <= MAX_SIZE).ok_or(DAMAGED)?;
        let mut rest = Literal(std::str::from_utf8(text).map_err(|_| DAMAGED)?);
        rest.advance(0);
        let (mut kind, mut by_column, mut shape) = (None, None, None);
        rest.expect('{')?;
        while !rest.skip('}') {
            let key = rest.string()?;
            rest.expect(':')?;
            match key {
                "descr" if rest.0.starts_with('[') => return Err(STRUCTURED),
                "descr" => {
                    let text = rest.string()?;
                    // A byte order and a letter, whatever follows them.
                    let letter = text.trim_start_matches(['<', '>', '|', '=']).chars().next();
                    letter.filter(char::is_ascii_alphabetic).ok_or(DAMAGED)?;
                    kind = Some(text.to_owned());
                }
                "fortran_order" => by_column = Some(rest.boolean()?),
                "shape" => shape = Some(rest.numbers()?),
                _ => return Err(DAMAGED),
            }
            if !rest.skip(',') {
                rest.expect('}')?;
                break;
            }
        }
        match (rest.0.trim_end(), kind, by_column, shape) {
            ("", Some(kind), Some(by_column), Some(shape)) => {
                Ok(Header { kind, by_column, shape, size })
            }
            _ => Err(DAMAGED),
        }
    }
}

/// What is left of a text, from its next token on.
struct Literal<'a>(&'a str);

impl<'a> Literal<'a> {
    /// Go on by so many bytes, and over blanks.
    fn advance(&mut self, n: usize) {
        self.0 = self.0[n..].trim_start_matches([' ', '\t', '\x0c']);
    }

    fn skip(&mut self, token: char) -> bool {
        let found = self.0.starts_with(token);
        if found {
            self.advance(token.len_utf8());
        }
        found
    }

    fn expect(&mut self, token: char) -> Result<(), &'static str> {
        if self.skip(token) { Ok(()) } else { Err(DAMAGED) }
    }

    fn string(&mut self) -> Result<&'a str, &'static str> {
        let quote = self.0.chars().next().filter(|c| matches!(c, '\'' | '"')).ok_or(DAMAGED)?;
        let (string, _) = self.0[1..].split_once(quote).ok_or(DAMAGED)?;
        self.advance(string.len() + 2);
        if string.contains(['\\', '\n']) { Err(DAMAGED) } else { Ok(string) }
    }

    fn boolean(&mut self) -> Result<bool, &'static str> {
        let value = self.0.starts_with("True");
        if !value && !self.0.starts_with("False") {
            return Err(DAMAGED);
        }
        self.advance(if value { 4 } else { 5 });
        Ok(value)
    }

    /// A tuple of numbers that are not negative.
    fn numbers(&mut self) -> Result<Vec<usize>, &'static str> {
        let mut numbers = Vec::new();
        let mut product = 1i64;
        self.expect('(')?;
        while !self.skip(')') {
            let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
            let number: i64 = self.0[..end].parse().map_err(|_| DAMAGED)?;
            product = product.checked_mul(number.max(1)).ok_or(DAMAGED)?;
            numbers.push(usize::try_from(number).map_err(|_| DAMAGED)?);
            self.advance(end);
            // `(3)` is a number, `(3,)` a tuple.
            if !self.skip(',') {
                self.expect(')')?;
                return if numbers.len() > 1 { Ok(numbers) } else { Err(DAMAGED) };
            }
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, text: &str) -> Vec<u8> {
        let mut out = b"\x93NUMPY".to_vec();
        out.extend([version, 0]);
        let length = (text.len() as u32).to_le_bytes();
        out.extend(&length[..if version == 1 { 2 } else { 4 }]);
        out.extend(text.as_bytes());
        out
    }

    fn read(text: &str) -> Result<Header, &'static str> {
        Header::read(&file(1, text))
    }

    #[test]
    fn spellings_of_one_header() {
        let texts = [
            // numpy, other writers, other orders and quotes.
            "{'descr': '<f4', 'fortran_order': False, 'shape': (12, 3), }   \n",
            "{'descr':'<f4','fortran_order':False,'shape':(12,3)}",
            " { \"shape\" : ( 12 , 003 , ) ,\t'fortran_order' : False , \"descr\" : \"<f4\" } ",
            "{'descr': '|O', 'fortran_order': False, 'shape': (12, 3), 'descr': '<f4'}",
        ];
        for text in texts {
            for version in [1, 2, 3] {
                let size = text.len() + if version == 1 { 10 } else { 12 };
                let want =
                    Header { kind: "<f4".into(), by_column: false, shape: vec![12, 3], size };
                assert_eq!(Header::read(&file(version, text)), Ok(want), "{text}");
            }
        }
        let shape = |text: &str| {
            read(&format!("{{'descr': '<f4', 'fortran_order': True, 'shape': {text}}}"))
                .map(|header| header.shape)
        };
        assert_eq!(shape("()"), Ok(vec![]));
        assert_eq!(shape("(7,)"), Ok(vec![7]));
        assert_eq!(shape("(0, 4611686018427387904)"), Ok(vec![0, 1 << 62]));
        for text in [
            "(7)",
            "(,)",
            "(7,,)",
            "(7 7)",
            "(-7,)",
            "(0x7,)",
            "(7L,)",
            "(1_0,)",
            "[7]",
            "((7,),)",
            "(7.0,)",
            "7",
            "(7",
            "",
            "(9223372036854775808,)",
            "(4294967296, 0, 4294967296)",
        ] {
            assert_eq!(shape(text), Err(DAMAGED), "{text}");
        }
    }

    #[test]
    fn what_is_no_header() {
        let whole = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }";
        assert!(read(whole).is_ok());
        for (part, other) in [
            ("'descr'", "b'descr'"),
            ("'descr'", "'de\\x73cr'"),
            ("'<f4'", "<f4"),
            ("'<f4'", "'<f4\""),
            ("'<f4'", "'<f4\n'"),
            ("'<f4', ", "'<f4' "),
            ("False", "0"),
            ("False", "Falsehood"),
            ("'shape'", "'size'"),
            ("'shape': (3,), ", ""),
            ("}", ""),
            ("}", "} x"),
            ("{", "[{"),
        ] {
            let text = whole.replacen(part, other, 1);
            assert_ne!(text, whole);
            assert_eq!(read(&text), Err(DAMAGED), "{text}");
        }
        assert_eq!(read(&whole.replace("'<f4'", "[('a', '<f4')]")), Err(STRUCTURED));
        for n in 0..file(1, whole).len() {
            assert_eq!(Header::read(&file(1, whole)[..n]), Err(DAMAGED));
        }
        let mut other = file(1, whole);
        other[7] = 1;
        assert_eq!(Header::read(&other), Err(DAMAGED));
        assert_eq!(Header::read(&file(4, whole)), Err(DAMAGED));
        let long = format!("{whole}{}", " ".repeat(MAX_SIZE));
        assert_eq!(Header::read(&file(2, &long)), Err(DAMAGED));
    }
}

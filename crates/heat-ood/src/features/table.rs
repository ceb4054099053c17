//! Tables of text: comma, semicolon or tab between the columns, with a header or
//! without, also compressed with gzip. Read row by row; what is kept are the
//! values in single precision.
//!
//! Columns named `avg_0`, `avg_1`, …, `std_0`, …, `logits_0`, …, `probs_0`, … are
//! these fields, as [`super::convert()`] writes them; else all columns of numbers
//! are `avg`, and columns of text are left out.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use csv::ByteRecord;
use flate2::read::MultiGzDecoder;

use super::Field;
use super::open::OpenOptions;
use crate::error::{Error, Result};
use crate::io::{Array, Budget, Bytes, Dtype, map, memory_limit, readable};

/// Names that a column of labels goes by, unless one is told.
const LABELS: [&str; 3] = ["label", "class", "target"];

/// What is looked at to find the form of a file.
const START: usize = 1 << 20;

/// Bytes that a distinct label takes beside its text, about.
const NAME: usize = 128;

/// Longest text that a message repeats.
const SHOWN: usize = 40;

/// The fields of a table.
pub(super) fn open(
    path: &Path,
    options: &OpenOptions,
    notices: &mut Vec<String>,
) -> Result<Vec<(String, Array)>> {
    let file = Text::open(path)?;
    let form = Form::of(&file, options.label_column.as_deref(), notices)?;
    form.read(&file)
}

/// The labels of a table: its only column, or the one of labels.
pub(super) fn open_labels(path: &Path) -> Result<Array> {
    let file = Text::open(path)?;
    let mut form = Form::of(&file, None, &mut Vec::new())?;
    if let [role] = &mut form.roles[..] {
        *role = Role::Label;
    }
    form.roles.iter_mut().filter(|r| **r != Role::Label).for_each(|r| *r = Role::LeftOut);
    if form.roles.iter().all(|r| *r == Role::LeftOut) {
        let remedy = "name the column of labels so";
        return Err(Error::missing(path.display().to_string(), "column `label`", remedy));
    }
    Ok(form.read(&file)?.remove(0).1)
}

/// A text file, compressed or not.
struct Text<'a> {
    path: &'a Path,
    bytes: Arc<Bytes>,
}

impl<'a> Text<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let bytes = map(path)?;
        if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            return Err(Error::format(path, "is UTF-16 text: save it as UTF-8"));
        }
        Ok(Text { path, bytes })
    }

    /// All of it, without a byte order mark.
    fn reader(&self) -> Result<Box<dyn Read + '_>> {
        let bytes = &self.bytes[..];
        let mut reader: Box<dyn Read + '_> = match bytes.starts_with(b"\x1f\x8b") {
            true => Box::new(MultiGzDecoder::new(bytes)),
            false => Box::new(bytes),
        };
        let mut start = Vec::new();
        reader.by_ref().take(3).read_to_end(&mut start).map_err(Error::io("read", self.path))?;
        if start == b"\xef\xbb\xbf" {
            start.clear();
        }
        Ok(Box::new(std::io::Cursor::new(start).chain(reader)))
    }

    fn records(&self, delimiter: u8) -> Result<Records<'_>> {
        let mut form = csv::ReaderBuilder::new();
        form.has_headers(false).delimiter(delimiter).trim(csv::Trim::All);
        let since = Rc::default();
        let text = Bounded { text: self.reader()?, since: Rc::clone(&since) };
        Ok(Records { reader: form.from_reader(text), since })
    }

    fn error(&self, problem: impl Into<String>) -> Error {
        Error::format(self.path, problem)
    }

    /// An error of the csv crate, by line.
    fn broken(&self, error: &csv::Error) -> Error {
        match error.kind() {
            csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
                let line = pos.as_ref().map_or(0, csv::Position::line);
                self.error(format!("line {line} has {len} columns, and the first {expected_len}"))
            }
            _ => self.error(format!("no table that can be read: {error}")),
        }
    }
}

/// The rows of a table, none of them endless.
struct Records<'a> {
    reader: csv::Reader<Bounded<'a>>,
    since: Rc<Cell<usize>>,
}

impl Records<'_> {
    /// Read the next row; whether there was one.
    fn next(&mut self, record: &mut ByteRecord) -> csv::Result<bool> {
        self.since.set(0);
        self.reader.read_byte_record(record)
    }
}

/// A text of which a row may take a 64th of the memory limit, or 1 MiB if that is more. A line that
/// does not end, or a quote, would take all that a compressed text holds.
struct Bounded<'a> {
    text: Box<dyn Read + 'a>,
    /// Bytes since a row began.
    since: Rc<Cell<usize>>,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.text.read(buffer)?;
        self.since.set(self.since.get() + n);
        let most = (memory_limit() / 64).max(1 << 20);
        if self.since.get() <= most {
            return Ok(n);
        }
        let problem = format!(
            "a row of more than {}; is a quote not closed, or are the lines' ends missing?",
            readable(most)
        );
        Err(std::io::Error::new(std::io::ErrorKind::InvalidData, problem))
    }
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Role {
    /// This column of a field.
    Value(Field, usize),
    Label,
    LeftOut,
}

/// How a table is written, and what its columns are.
struct Form {
    delimiter: u8,
    header: bool,
    names: Vec<String>,
    roles: Vec<Role>,
}

impl Form {
    fn of(file: &Text<'_>, label: Option<&str>, notices: &mut Vec<String>) -> Result<Self> {
        let mut start = Vec::new();
        let read = file.reader()?.take(START as u64).read_to_end(&mut start);
        read.map_err(Error::io("read", file.path))?;
        let delimiter = delimiter(&start);
        let mut records = file.records(delimiter)?;
        let mut next = || {
            let mut record = ByteRecord::new();
            let found = records.next(&mut record).map_err(|e| file.broken(&e))?;
            Ok::<_, Error>(found.then_some(record))
        };
        let Some(first) = next()? else { return Err(file.error("has no lines")) };
        let second = next()?;
        let header = is_header(&first, second.as_ref());
        let texts = |r: &ByteRecord| r.iter().map(shown).collect::<Vec<_>>();
        let names = match header {
            true => texts(&first),
            false => (1..=first.len()).map(|i| i.to_string()).collect(),
        };
        let sample = if header { second } else { Some(first) };
        let Some(sample) = sample else { return Err(file.error("has a header and no rows")) };
        let mut form = Form { delimiter, header, names, roles: Vec::new() };
        form.roles = form.assign(file, &sample, label, notices)?;
        Ok(form)
    }

    /// What each column is, by its name and its first value.
    fn assign(
        &self,
        file: &Text<'_>,
        sample: &ByteRecord,
        label: Option<&str>,
        notices: &mut Vec<String>,
    ) -> Result<Vec<Role>> {
        let count = self.names.len();
        let label = self.label_column(file, label)?;
        let named: Vec<_> = self.names.iter().map(|name| field_of(name)).collect();
        let by_name = named.iter().any(Option::is_some);
        let mut roles = vec![Role::LeftOut; count];
        let (mut left_out, mut plain) = (Vec::new(), 0);
        for i in 0..count {
            let index = i == 0 && self.header && is_index(&self.names[0]);
            let text = number(&sample[i], self.delimiter).is_none() && !is_missing(&sample[i]);
            roles[i] = match named[i] {
                _ if label == Some(i) => Role::Label,
                Some((field, at)) if by_name => Role::Value(field, at),
                None if !by_name && !index && !text => {
                    plain += 1;
                    Role::Value(Field::ALL[0], plain - 1)
                }
                _ => {
                    left_out.push(i);
                    Role::LeftOut
                }
            };
        }
        number_columns(&mut roles).map_err(|field| {
            file.error(format!("two columns are the same one of `{}`", field.name()))
        })?;
        if !left_out.is_empty() {
            let few = left_out.iter().take(6).map(|i| format!("`{}`", self.names[*i]));
            let few: Vec<String> = few.collect();
            let more = if left_out.len() > few.len() { ", …" } else { "" };
            notices.push(format!(
                "{}: left out {} column(s) that are no features: {}{more}",
                file.path.display(),
                left_out.len(),
                few.join(", ")
            ));
        }
        Ok(roles)
    }

    fn label_column(&self, file: &Text<'_>, told: Option<&str>) -> Result<Option<usize>> {
        let by_name = |name: &str| {
            self.names.iter().position(|n| self.header && n.eq_ignore_ascii_case(name))
        };
        let Some(told) = told else {
            return Ok(LABELS.iter().find_map(|name| by_name(name)));
        };
        let by_number = || told.parse().ok().filter(|n| (1..=self.names.len()).contains(n));
        let found = by_name(told).or_else(|| by_number().map(|n| n - 1));
        found.map(Some).ok_or_else(|| {
            let first: Vec<&str> = self.names.iter().take(8).map(String::as_str).collect();
            let known = format!(
                "{} has {} columns: {}{}; give a name, or a number from 1",
                file.path.display(),
                self.names.len(),
                first.join(", "),
                if self.names.len() > first.len() { ", …" } else { "" }
            );
            Error::config("label_column", told, known)
        })
    }

    /// All rows.
    fn read(&self, file: &Text<'_>) -> Result<Vec<(String, Array)>> {
        let mut budget = Budget::of_content(file.bytes.len());
        let too_much = || {
            let limit = readable(memory_limit());
            file.error(format!("its values take more memory than the limit of {limit}: raise it"))
        };
        let fields: Vec<Field> = Field::ALL.into_iter().filter(|f| self.width(*f) > 0).collect();
        let mut values: Vec<Vec<u8>> = vec![Vec::new(); fields.len()];
        let widths: Vec<usize> = fields.iter().map(|f| self.width(*f)).collect();
        let width: usize = widths.iter().sum();
        let mut places: Vec<(usize, usize)> = vec![(usize::MAX, 0); self.roles.len()];
        for (place, role) in places.iter_mut().zip(&self.roles) {
            if let Role::Value(field, at) = role {
                *place = (fields.iter().position(|f| f == field).unwrap_or(0), *at);
            }
        }
        let (mut codes, mut names) = (Vec::<u32>::new(), BTreeMap::<String, u32>::new());
        let mut records = file.records(self.delimiter)?;
        let mut record = ByteRecord::new();
        let (mut rows, mut skip) = (0, self.header);
        while records.next(&mut record).map_err(|e| file.broken(&e))? {
            if std::mem::take(&mut skip) {
                continue;
            }
            if !budget.spend(4 * (width + 1)) {
                return Err(too_much());
            }
            for (values, width) in values.iter_mut().zip(&widths) {
                let bytes = 4 * width;
                values.try_reserve(bytes).map_err(|_| too_much())?;
                values.resize(values.len() + bytes, 0);
            }
            for (i, (text, role)) in record.iter().zip(&self.roles).enumerate() {
                match role {
                    Role::LeftOut => {}
                    Role::Label => {
                        let name = std::str::from_utf8(text).map_err(|_| {
                            self.wrong(file, &record, i, "is no UTF-8 text: save the file as UTF-8")
                        })?;
                        let next = names.len() as u32;
                        let code = match names.get(name) {
                            Some(code) => *code,
                            None if !budget.spend(NAME + name.len()) => return Err(too_much()),
                            None => *names.entry(name.to_owned()).or_insert(next),
                        };
                        codes.push(code);
                    }
                    Role::Value(..) => {
                        let value = number(text, self.delimiter).filter(|v| v.is_finite());
                        let value = value.ok_or_else(|| {
                            let text = if text.is_empty() {
                                "empty".into()
                            } else {
                                format!("`{}`", shown(text))
                            };
                            let problem = format!(
                                "is {text}, and every value must be a finite number of single \
                                 precision: remove or repair that row"
                            );
                            self.wrong(file, &record, i, &problem)
                        })?;
                        let (field, at) = places[i];
                        let at = 4 * (rows * widths[field] + at);
                        values[field][at..at + 4].copy_from_slice(&value.to_le_bytes());
                    }
                }
            }
            rows += 1;
        }
        let mut out = Vec::new();
        if self.roles.contains(&Role::Label) {
            out.push(("label".to_owned(), labels(&codes, names)));
        }
        let matrices = fields.iter().zip(values).zip(widths);
        out.extend(matrices.map(|((field, bytes), width)| {
            let shape = [rows, width];
            (field.name().to_owned(), Array::owned(bytes, Dtype::F32, &shape))
        }));
        Ok(out)
    }

    /// Number of columns of a field.
    fn width(&self, field: Field) -> usize {
        self.roles.iter().filter(|r| matches!(r, Role::Value(f, _) if *f == field)).count()
    }

    fn wrong(&self, file: &Text<'_>, record: &ByteRecord, column: usize, problem: &str) -> Error {
        let line = record.position().map_or(0, csv::Position::line);
        file.error(format!("line {line}, column `{}` {problem}", self.names[column]))
    }
}

/// The array of labels: numbers of the texts in their order.
fn labels(codes: &[u32], names: BTreeMap<String, u32>) -> Array {
    let mut order = vec![0u32; names.len()];
    for (place, code) in (0..).zip(names.values()) {
        order[*code as usize] = place;
    }
    let bytes = codes.iter().flat_map(|code| order[*code as usize].to_le_bytes()).collect();
    let mut array = Array::owned(bytes, Dtype::U32, &[codes.len()]);
    array.names = Some(Arc::new(names.into_keys().collect()));
    array
}

/// What stands between the columns of the first line, outside quotes. A
/// semicolon before a comma: that may be decimal.
fn delimiter(start: &[u8]) -> u8 {
    let mut quoted = false;
    let line = start.iter().skip_while(|b| b.is_ascii_whitespace()).take_while(|b| {
        quoted ^= **b == b'"';
        quoted || !matches!(b, b'\n' | b'\r')
    });
    let (mut inside, mut seen) = (false, [false; 256]);
    for byte in line {
        inside ^= *byte == b'"';
        seen[usize::from(*byte)] |= !inside;
    }
    let likely = [b'\t', b';', b'|', b',', b' '];
    likely.into_iter().find(|b| seen[usize::from(*b)]).unwrap_or(b',')
}

/// Whether the first line has names: it has more texts than the next, or is
/// 0, 1, 2, ….
fn is_header(first: &ByteRecord, second: Option<&ByteRecord>) -> bool {
    let texts = |r: &ByteRecord| {
        let text = |t: &&[u8]| number(t, b';').is_none() && !is_missing(t);
        r.iter().filter(text).count()
    };
    let counted = first.iter().enumerate().all(|(i, t)| t == i.to_string().as_bytes());
    texts(first) > second.map_or(0, texts) || (counted && first.len() > 1)
}

/// The column of row numbers that pandas writes.
fn is_index(name: &str) -> bool {
    name.is_empty() || name == "Unnamed: 0"
}

fn is_missing(text: &[u8]) -> bool {
    let text = text.to_ascii_lowercase();
    matches!(&*text, b"" | b"na" | b"n/a" | b"nan" | b"null" | b"none" | b"?")
}

/// A number, perhaps with a decimal comma where that separates no columns.
fn number(text: &[u8], delimiter: u8) -> Option<f32> {
    let text = std::str::from_utf8(text).ok()?;
    let parsed = text.parse().ok();
    if parsed.is_some() || delimiter == b',' || text.contains('.') {
        return parsed;
    }
    text.replacen(',', ".", 1).parse().ok()
}

/// The field and number that a column's name tells: `avg_12`, `logits[3]`.
fn field_of(name: &str) -> Option<(Field, usize)> {
    let digits = name.trim_end_matches(']');
    let at = digits.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = digits[at.len()..].parse().ok()?;
    let stem = at.trim_end_matches(['_', '.', '-', ' ', '[']).to_ascii_lowercase();
    let stem = match &*stem {
        "logit" => "logits",
        "prob" => "probs",
        other => other,
    };
    Some((Field::ALL.into_iter().find(|f| f.name() == stem)?, number))
}

/// Columns of each field in the order of their numbers, from 0; the field that
/// has one twice, if any.
fn number_columns(roles: &mut [Role]) -> std::result::Result<(), Field> {
    for field in Field::ALL {
        let at = |r: &Role| match r {
            Role::Value(f, at) if *f == field => Some(*at),
            _ => None,
        };
        let mut numbers: Vec<usize> = roles.iter().filter_map(at).collect();
        numbers.sort_unstable();
        if numbers.windows(2).any(|w| w[0] == w[1]) {
            return Err(field);
        }
        for role in roles.iter_mut() {
            if let Role::Value(f, at) = role
                && *f == field
            {
                *at = numbers.binary_search(at).unwrap_or(0);
            }
        }
    }
    Ok(())
}

/// A text of the file, short and printable.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.trim_start_matches(['#', ' ']).chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

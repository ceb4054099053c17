use super::*;
use crate::features::{Field, Pooling};

const AVG: Field = Field::Features(Pooling::Avg);

fn open(bytes: &[u8]) -> Result<FeatureStream<'_>> {
    FeatureStream::open("pipe", Box::new(bytes), None, &OpenOptions::default())
}

/// Values of `avg` and the names, read so many rows at a time.
fn all(bytes: &[u8], most: usize) -> Result<(Vec<f32>, Vec<String>)> {
    let mut stream = open(bytes)?;
    let (mut values, mut names) = (Vec::new(), Vec::new());
    while let Some(set) = stream.next(most, &|| true)? {
        assert!(set.len() <= most);
        values.extend(&*set.rows(AVG, 0..set.len())?);
        let named = set.names();
        names.extend(named.into_iter().flat_map(|n| (0..set.len()).map(move |i| n.get(i).into())));
    }
    Ok((values, names))
}

fn npy(kind: &str, shape: &str, order: &str, values: &[u8]) -> Vec<u8> {
    let text = format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
    out.extend(values);
    out
}

fn refused(bytes: &[u8], parts: &[&str]) {
    let error = all(bytes, 2).unwrap_err().to_string();
    for part in parts.iter().chain(&["pipe"]) {
        assert!(error.contains(part), "`{part}` not in: {error}");
    }
}

#[test]
fn every_form_is_known_by_its_first_bytes() {
    let values = [1.0, 2.5, -3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0];
    let bytes: Vec<u8> = values.iter().flat_map(|v: &f32| v.to_le_bytes()).collect();
    let big: Vec<u8> = values.iter().flat_map(|v| f64::from(*v).to_be_bytes()).collect();
    let texts = [
        "1,2.5\n-3,4\n5,6\n7,8\n9,10\n",
        "\u{feff}a;b\r\n1;2,5\r\n-3;4\r\n5;6\r\n7;8\r\n9;10",
        "label\tavg_1\tavg_0\nx\t2.5\t1\ny\t4\t-3\nx\t6\t5\nx\t8\t7\nx\t10\t9\n",
        "[1,2.5]\n\n[-3,4]\n[5,6]\n[7,8]\n[9,10]",
        "[[1,2.5],[-3,4]]\n[[5,6],[7,8],[9,10]]\n",
        "{\"avg\":[1,2.5],\"other\":null}\n{\"avg\":[-3,4]}\n{\"avg\":[5,6]}\n{\"avg\":[7,8]}\n{\"avg\":[9,10]}\n",
    ];
    let mut forms: Vec<Vec<u8>> = texts.iter().map(|t| t.as_bytes().to_vec()).collect();
    forms.push(npy("<f4", "(5, 2)", "False", &bytes));
    forms.push(npy(">f8", "(5, 2, 1, 1)", "False", &big));
    for form in forms {
        for most in [1, 2, 5, 100] {
            if form.starts_with(b"[[") && most < 5 {
                continue;
            }
            let (got, _) = all(&form, most).unwrap();
            assert_eq!(got, values, "{}", String::from_utf8_lossy(&form));
        }
    }
}

#[test]
fn names_come_with_the_rows() {
    for text in [
        "file,avg_0\n\"a,b.png\",1\nä.png,2\n",
        "avg_0,label,NAME\n1,0,\"a,b.png\"\n2,1,ä.png\n",
        "x,Path\n1,\"a,b.png\"\n2,ä.png\n",
        "{\"file\":\"a,b.png\",\"avg\":[1]}\n{\"avg\":[2],\"file\":\"\\u00e4.png\"}\n",
    ] {
        let (values, names) = all(text.as_bytes(), 1).unwrap();
        assert_eq!((values, names), (vec![1.0, 2.0], vec!["a,b.png".into(), "ä.png".into()]));
    }
    // Numbers under that name are features where no others are named so.
    assert_eq!(all(b"id,x\n1,2\n3,4\n", 9).unwrap().0, [1.0, 2.0, 3.0, 4.0]);
}

/// After a row nothing is read while there is nothing more.
#[test]
fn no_row_waits_for_those_behind_it() {
    for bytes in [&b"1,2\n3,4\n5,6\n"[..], b"[1,2]\n[3,4]\n[5,6]\n"] {
        let mut stream = open(bytes).unwrap();
        let first = stream.next(100, &|| false).unwrap().unwrap();
        assert!(first.len() < 100);
        let mut rows = first.len();
        while let Some(set) = stream.next(100, &|| false).unwrap() {
            rows += set.len();
        }
        assert_eq!(rows, 3);
    }
}

#[test]
fn what_is_no_row_is_refused() {
    refused(b"", &["is empty"]);
    refused(b" \n\n", &["is empty"]);
    refused(b"1,2\n3\n", &["line 2 has 1 columns, and the first 2"]);
    refused(b"1,2\n3,nan\n", &["line 2", "finite"]);
    refused(b"1,2\n3,1e99\n", &["line 2", "finite"]);
    refused(b"[1,2]\n[3]\n", &["line 2", "avg of 1 numbers, and the first row avg of 2"]);
    refused(b"[1,2]\n[3,null]\n", &["line 2", "column 1 is null"]);
    refused(b"[1,2]\n[3,1e39]\n", &["line 2", "column 1"]);
    refused(b"[1,2]\n[3,NaN]\n", &["line 2", "expected a JSON value a line"]);
    refused(b"[\n [1,2],\n [3,4]\n]\n", &["line 1", "expected a JSON value a line"]);
    refused(b"{\"score\": 1}\n", &["line 1", "has no `avg`", "score"]);
    refused(b"{\"avg\": 1}\n", &["`avg` is no array"]);
    refused(b"[[1,2],3]\n", &["holds something else"]);
    refused(b"{\"avg\":[1],\"name\":\"a\"}\n{\"avg\":[1]}\n", &["line 2", "a name"]);
    refused(b"PK\x03\x04aaaaaaaaaaaaaaaa", &["is a zip archive", "name the file"]);
    refused(b"\x1f\x8baaaaaaaaaaaaaaaa", &["is a gzip file"]);
    let four = 4f32.to_le_bytes();
    refused(&npy("<f4", "(2, 1)", "False", &four), &["ends after 1 of 2 rows"]);
    refused(&npy("<f4", "(1, 1)", "False", &[four, four].concat()), &["goes on after the 1 rows"]);
    refused(&npy("<f4", "(2, 2)", "True", &[0; 16]), &["columns lie one after the other"]);
    refused(&npy("<i4", "(1, 1)", "False", &four), &["type <i4"]);
    refused(&npy("<f4", "(1,)", "False", &four), &["expected [N, D]"]);
    refused(&npy("<f4", "(0, 3)", "False", &[]), &["no values"]);
    refused(&npy("<f4", "(4611686018427387903, 2)", "False", &four), &["ends after 0 of"]);
    refused(&npy("<f4", "(1, 1)", "False", &four)[..40], &["ends within the header"]);
    refused(&npy("<f4", "(2, 1)", "False", &[four, f32::NAN.to_le_bytes()].concat()), &["NaN"]);
    // A line without an end.
    let long = std::iter::repeat_n(b'1', LONGEST_LINE + (1 << 17)).collect::<Vec<_>>();
    refused(&[b"[1]\n", &long[..]].concat(), &["a line of more than"]);
    refused(&[b"1,2\n", &long[..]].concat(), &["a line of more than"]);
}

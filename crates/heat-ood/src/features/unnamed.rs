//! Files whose arrays have no names of ours, and files of other kinds: read
//! where only one thing can be meant, else answered with what to do.

use std::path::Path;

use super::field::Field;
use super::names::NAME;
use super::shard::{names, of_parts, safetensors_arrays};
use crate::error::{Error, Result};
use crate::io::{Array, Npz, TensorFile, Texts, kind_of, map};

/// Names that labels go by elsewhere.
const LABELS: [&str; 6] = ["labels", "y", "target", "targets", "class", "label_id"];

/// Most arrays that an error lists.
const SHOWN: usize = 8;

/// One array of a file: its name, its shape, and whether it is a matrix of floats.
struct Entry {
    name: String,
    shape: Vec<usize>,
    matrix: bool,
}

/// Arrays by name.
type Arrays = Vec<(String, Array)>;

/// The arrays of an `.npz` file, and the names of its rows.
pub(super) fn npz(path: &Path, notices: &mut Vec<String>) -> Result<(Arrays, Option<Texts>)> {
    let mut file = Npz::open(path)?;
    Ok((arrays(&mut file, path, notices)?, file.texts(NAME)?))
}

fn arrays(file: &mut Npz, path: &Path, notices: &mut Vec<String>) -> Result<Vec<(String, Array)>> {
    let listed = file.entries()?;
    let parts = of_parts(listed.iter().map(|e| (&*e.name, &*e.shape)));
    let mut names: Vec<&str> = names().collect();
    names.extend(parts.iter().map(String::as_str));
    let arrays = file.arrays(&names)?;
    if arrays.iter().any(|(name, _)| is_matrix_name(name)) {
        return Ok(arrays);
    }
    let of = |e: crate::io::NpzEntry| Entry { matrix: e.is_matrix(), name: e.name, shape: e.shape };
    let entries: Vec<Entry> = listed.into_iter().map(of).collect();
    let (features, label) = guess(path, &entries, notices)?;
    let mut found = file.arrays(&[&features])?;
    found.extend(match label {
        Some(label) => file.arrays(&[&label])?,
        None => Vec::new(),
    });
    Ok(renamed(found, &features).chain(arrays).collect())
}

/// The arrays of a safetensors file.
pub(super) fn safetensors(
    file: &TensorFile,
    notices: &mut Vec<String>,
) -> Result<Vec<(String, Array)>> {
    let arrays = safetensors_arrays(file)?;
    // A detector or a head is something else, with matrices of its own.
    let other = file.metadata("format").is_some() || file.has("bias");
    if other || arrays.iter().any(|(name, _)| is_matrix_name(name)) {
        return Ok(arrays);
    }
    let of = |(name, kind, shape): (String, String, Vec<usize>)| {
        let wide = shape.iter().skip(1).filter(|n| **n != 1).count();
        let matrix = kind.contains('F') && shape.len() >= 2 && wide <= 1;
        Entry { name, shape, matrix }
    };
    let entries: Vec<Entry> = file.list().into_iter().map(of).collect();
    let (features, label) = guess(file.path(), &entries, notices)?;
    let names = std::iter::once(&features).chain(&label);
    let found = names.filter_map(|n| file.array(n).map(|a| a.map(|a| (n.clone(), a))));
    let found: Vec<_> = found.collect::<Result<_>>()?;
    Ok(renamed(found, &features).chain(arrays).collect())
}

fn is_matrix_name(name: &str) -> bool {
    Field::ALL.iter().any(|field| field.name() == name)
}

fn renamed(
    found: Vec<(String, Array)>,
    features: &str,
) -> impl Iterator<Item = (String, Array)> + use<> {
    let features = features.to_owned();
    found.into_iter().map(move |(name, array)| {
        (if name == features { "avg".to_owned() } else { "label".to_owned() }, array)
    })
}

/// The only matrix, and what can only be its labels.
fn guess(
    path: &Path,
    entries: &[Entry],
    notices: &mut Vec<String>,
) -> Result<(String, Option<String>)> {
    let matrices: Vec<&Entry> = entries.iter().filter(|e| e.matrix).collect();
    let [matrix] = matrices[..] else {
        let mut list: Vec<String> = entries
            .iter()
            .take(SHOWN)
            .map(|e| format!("`{}` {:?}", shown(&e.name), e.shape))
            .collect();
        if entries.len() > SHOWN {
            list.push(format!("… {} arrays in all", entries.len()));
        }
        let place = path.display().to_string();
        let remedy = format!(
            "it holds: {}; name the features `avg` and class labels `label`, as \
             `np.savez(path, avg=x, label=y)`",
            if list.is_empty() { "nothing".to_owned() } else { list.join(", ") }
        );
        return Err(Error::missing(place, "`avg`, `std`, `max`, `logits` or `probs`", remedy));
    };
    let mut labels = entries.iter().filter(|e| LABELS.contains(&&*e.name.to_lowercase()));
    let label = labels.find(|e| e.shape.first() == matrix.shape.first());
    notices.push(format!(
        "{}: `{}`, its only matrix, is taken as `avg`{}",
        path.display(),
        shown(&matrix.name),
        label.map_or(String::new(), |l| format!(", and `{}` as `label`", shown(&l.name)))
    ));
    Ok((matrix.name.clone(), label.map(|l| l.name.clone())))
}

/// A name from a file, short and printable.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(40).collect()
}

/// What a file of another kind is, by its bytes, and what to do with it, by its name.
pub(super) fn refused(path: &Path) -> Error {
    let is = match map(path) {
        Ok(bytes) => kind_of(&bytes).map_or(String::new(), |kind| format!("is {kind}; ")),
        Err(error) => return error,
    };
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let lines = |read: &str, features: &str| {
        format!(
            "it is not read here; write it anew with two lines of Python:\n  \
             {read}\n  numpy.savez('features.npz', avg={features}, label=y)"
        )
    };
    let problem = match &*ending {
        "parquet" => {
            lines("d = pandas.read_parquet(path); y = d.pop('label')", "d.to_numpy('float32')")
        }
        "feather" | "arrow" => {
            lines("d = pandas.read_feather(path); y = d.pop('label')", "d.to_numpy('float32')")
        }
        "xlsx" | "xls" | "ods" => {
            lines("d = pandas.read_excel(path); y = d.pop('label')", "d.to_numpy('float32')")
        }
        "h5" | "hdf5" | "he5" => {
            lines("f = h5py.File(path); x, y = f['features'][:], f['label'][:]", "x")
        }
        "pkl" | "pickle" => lines("x, y = pickle.load(open(path, 'rb'))", "x"),
        "joblib" => lines("x, y = joblib.load(path)", "x"),
        "pt" | "pth" => lines("x, y = torch.load(path)", "x.cpu().numpy()"),
        "mat" => lines("m = scipy.io.loadmat(path); x, y = m['features'], m['label']", "x"),
        _ => "expected a feature set: .safetensors, .npy, .npz, .csv, .tsv, or a directory of \
              .safetensors or .npy files"
            .to_owned(),
    };
    Error::format(path, is + &problem)
}

//! A state dict as `torch.save` writes it: a zip archive of stored entries,
//! each storage on a multiple of 64 bytes, and a pickle of protocol 2.

use std::collections::HashMap;
use std::io::{Cursor, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::ebm::mlp::Mlp;
use crate::error::{Error, Result};
use crate::io::{Tensor, TensorData, write_atomically};

/// Directory within the archive. PyTorch takes the file's name, but reads any.
const DIRECTORY: &str = "archive";

/// Write a network as `{"model_state": {"mlp.0.weight": …}}`. Layers that
/// share their weights stand under all their names, on one storage. The bytes
/// depend on the network alone.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: impl AsRef<Path>, net: &Mlp) -> Result<()> {
    let path = path.as_ref();
    let bytes = encode(net)?.map_err(|e| Error::io("write", path)(e.into()))?;
    write_atomically(path, |w| w.write_all(&bytes))
}

fn encode(net: &Mlp) -> Result<zip::result::ZipResult<Vec<u8>>> {
    let tensors = net.tensors();
    let pickle = pickle(net, &tensors)?;
    let storages = tensors.iter().enumerate().map(|(key, (_, tensor))| {
        let TensorData::F32(values) = &tensor.data else { return (key, &[][..]) };
        (key, bytemuck::cast_slice(values))
    });
    Ok(archive(&pickle, storages))
}

fn archive<'a>(
    pickle: &[u8],
    storages: impl Iterator<Item = (usize, &'a [u8])>,
) -> zip::result::ZipResult<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .with_alignment(64);
    let mut add = |name: &str, bytes: &[u8]| -> zip::result::ZipResult<()> {
        zip.start_file(format!("{DIRECTORY}/{name}"), options)?;
        Ok(zip.write_all(bytes)?)
    };
    add("data.pkl", pickle)?;
    add(".format_version", b"1")?;
    add(".storage_alignment", b"64")?;
    add("byteorder", b"little")?;
    for (key, bytes) in storages {
        add(&format!("data/{key}"), bytes)?;
    }
    add("version", b"3\n")?;
    Ok(zip.finish()?.into_inner())
}

/// The pickle: instructions of protocol 2, no memo.
fn pickle(net: &Mlp, tensors: &[(String, Tensor)]) -> Result<Vec<u8>> {
    let keys: HashMap<&str, usize> =
        tensors.iter().enumerate().map(|(key, (name, _))| (name.as_str(), key)).collect();
    let mut out = b"\x80\x02}".to_vec();
    text(&mut out, "model_state");
    ordered_dict(&mut out);
    out.push(b'(');
    for place in net.architecture().places()? {
        for (end, shape) in [("weight", &place.shape[..]), ("bias", &place.shape[..1])] {
            let Some(key) = keys.get(format!("{}.{end}", place.first).as_str()) else { continue };
            text(&mut out, &format!("{}.{end}", place.name));
            tensor(&mut out, *key, shape);
        }
    }
    // Into the state dict; that into the outer one; the end.
    out.extend(b"us.");
    Ok(out)
}

/// `_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`.
fn tensor(out: &mut Vec<u8>, key: usize, shape: &[usize]) {
    out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    text(out, "storage");
    out.extend(b"ctorch\nFloatStorage\n");
    text(out, &key.to_string());
    text(out, "cpu");
    integer(out, shape.iter().product());
    out.extend(b"tQ");
    integer(out, 0);
    let strides: &[usize] = if shape.len() == 2 { &[shape[1], 1] } else { &[1] };
    for numbers in [shape, strides] {
        out.push(b'(');
        numbers.iter().for_each(|n| integer(out, *n));
        out.push(b't');
    }
    out.push(0x89);
    ordered_dict(out);
    out.extend(b"tR");
}

fn ordered_dict(out: &mut Vec<u8>) {
    out.extend(b"ccollections\nOrderedDict\n)R");
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

/// At most 2²⁸ here: [`crate::ebm::mlp::Architecture`] bounds the widths.
fn integer(out: &mut Vec<u8>, n: usize) {
    out.push(b'J');
    out.extend((n as i32).to_le_bytes());
}

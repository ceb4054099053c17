//! From the tensors of a request to rows for a model: named, shaped and checked before they wait
//! beside those of others.

use heat_images::Image;
use heat_ood::features::Field;

use crate::images::Picture;
use crate::model::Model;
use crate::protocol::{Input, Values};
use crate::queue::Rows;
use crate::refusal::{Kind, Refusal, Result};

/// The rows of a request, and how many there are.
///
/// # Errors
/// If a tensor is missing, not read, of another shape, or there are more rows than `limit`.
pub fn of(model: &Model, network: bool, inputs: Vec<Input>, limit: usize) -> Result<(Rows, usize)> {
    let image = |input: &Input| input.name == "image" || input.name == "image_bytes";
    if inputs.iter().any(image) {
        if !network {
            return Err(Refusal::invalid(format!(
                "the model `{}` takes features, not images: the server was given no network for \
                 it (`--backbone {}=MODEL.onnx`)",
                model.name, model.name
            )));
        }
        let [input] = <[Input; 1]>::try_from(inputs)
            .map_err(|_| Refusal::invalid("images come alone, without other tensors"))?;
        return images(input, limit);
    }
    features(model, inputs, limit)
}

fn check_rows(rows: usize, limit: usize) -> Result<()> {
    if rows <= limit {
        return Ok(());
    }
    let text = format!("{rows} rows, and {limit} are the most of a request; send several");
    Err(Refusal::new(Kind::TooLarge, text))
}

fn features(model: &Model, inputs: Vec<Input>, limit: usize) -> Result<(Rows, usize)> {
    let known = || {
        let each = model.inputs.iter().map(|(f, dim)| format!("{} [N, {dim}]", f.name()));
        each.collect::<Vec<_>>().join(", ")
    };
    let mut rows: Option<(usize, String)> = None;
    let mut fields: Vec<(Field, Vec<f32>)> = Vec::with_capacity(inputs.len());
    for Input { name, shape, values } in inputs {
        let Some((field, dim)) = model.inputs.iter().find(|(f, _)| f.name() == name) else {
            return Err(Refusal::invalid(format!(
                "the model `{}` reads no `{name}`, but {}",
                model.name,
                known()
            )));
        };
        let Values::Floats(values) = values else {
            return Err(Refusal::invalid(format!(
                "the input `{name}` is of bytes, expected FP32, FP64, FP16 or BF16"
            )));
        };
        let &[n, d] = &shape[..] else {
            return Err(Refusal::invalid(format!(
                "the input `{name}` has shape {shape:?}, expected [N, {dim}]"
            )));
        };
        if d != *dim {
            return Err(Refusal::invalid(format!(
                "the input `{name}` has shape {shape:?}, expected [N, {dim}], as in training"
            )));
        }
        check_rows(n, limit)?;
        if let Some((first, other)) = rows.as_ref().filter(|(first, _)| *first != n) {
            return Err(Refusal::invalid(format!(
                "the input `{name}` has {n} rows, and `{other}` {first}"
            )));
        }
        rows = Some((n, name));
        fields.push((*field, values));
    }
    for (field, dim) in &model.inputs {
        if !fields.iter().any(|(f, _)| f == field) {
            return Err(Refusal::invalid(format!(
                "the input `{}` [N, {dim}] is missing: the model `{}` reads {}",
                field.name(),
                model.name,
                known()
            )));
        }
    }
    let rows = rows.map_or(0, |(n, _)| n);
    Ok((Rows::Features(fields), rows))
}

fn images(input: Input, limit: usize) -> Result<(Rows, usize)> {
    let Input { name, shape, values } = input;
    let expected = |what: &str| {
        Refusal::invalid(format!("the input `{name}` has shape {shape:?}, expected {what}"))
    };
    match values {
        Values::Texts(files) if name == "image_bytes" => {
            if shape.len() != 1 && shape[1..].iter().any(|side| *side != 1) {
                return Err(expected("[N], a JPEG or PNG file each"));
            }
            check_rows(files.len(), limit)?;
            let rows = files.len();
            Ok((Rows::Images(files.into_iter().map(Picture::File).collect()), rows))
        }
        Values::Bytes(pixels) if name == "image" => {
            let &[rows, height, width, 3] = &shape[..] else {
                return Err(expected("[N, height, width, 3]"));
            };
            check_rows(rows, limit)?;
            let size = height * width * 3;
            let one = |rgb: &[u8]| Picture::Pixels(Image { width, height, rgb: rgb.to_vec() });
            Ok((Rows::Images(pixels.chunks_exact(size).map(one).collect()), rows))
        }
        _ => Err(Refusal::invalid(format!(
            "the input `{name}` has the wrong datatype, expected BYTES for `image_bytes`, UINT8 \
             for `image`"
        ))),
    }
}

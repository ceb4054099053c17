//! A model whose inputs have fixed shapes.
//!
//! What a graph computes of shapes is then constant, and is folded when the model is loaded.
//! Otherwise ONNX Runtime places it on the processor, also where a device could compute it
//! (onnxruntime#17930); and TensorRT, MIGraphX, CoreML and DirectML compile for each shape anew.

use std::path::Path;

use prost::Message;

use super::proto::{Dim, INPUT, OUTPUT, Shape, Value};
use super::rewrite::{self, Field};
use heat_ood::Result;

/// The model with these inputs of these shapes and no outputs but those that are read: others may be
/// constants now, which not all providers have as outputs. Its other bytes are copied as they are.
///
/// # Errors
/// If the model is damaged.
pub(super) fn with_shapes(
    path: &Path,
    bytes: &[u8],
    shapes: &[(String, Vec<usize>)],
    outputs: &[String],
) -> Result<Vec<u8>> {
    let within = |number, body: &[u8]| {
        if ![INPUT, OUTPUT].contains(&number) {
            return Some(Field::Same);
        }
        let mut value = Value::decode(body).ok()?;
        if number == OUTPUT {
            return Some(if outputs.contains(&value.name) {
                Field::Same
            } else {
                Field::Anew(vec![])
            });
        }
        let shape = shapes.iter().find(|(name, _)| *name == value.name);
        let tensor = value.kind.as_mut().and_then(|kind| kind.tensor.as_mut());
        Some(match shape.zip(tensor) {
            Some(((_, sides), tensor)) => {
                let dim = |side: &usize| Dim { value: i64::try_from(*side).ok(), name: None };
                tensor.shape = Some(Shape { dim: sides.iter().map(dim).collect() });
                Field::Anew(vec![value.encode_to_vec()])
            }
            None => Field::Same,
        })
    };
    rewrite::graph(path, bytes, &within)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::proto::{Graph, Model, Node};

    #[test]
    fn inputs_are_fixed_and_the_rest_stays() {
        let free = [Err("batch"), Ok(3), Err("height"), Err("width")];
        let image = Value::floats("image", Some(&free));
        let seed = Value::floats("seed", Some(&[Err("batch"), Ok(7)]));
        let node = vec![Node::new("Identity", &["image"], "out", vec![])];
        let output = ["out", "other"].map(|name| Value::floats(name, None)).to_vec();
        let first = Graph { node, input: vec![image], output, ..Graph::default() };
        let second = Graph { input: vec![seed.clone()], ..Graph::default() };
        let model = |graph| Model { graph: Some(graph), ..Model::default() }.encode_to_vec();
        // Joined as messages are, with a field that nobody knows between them.
        let bytes = [model(first), vec![0xfa, 0x3f, 0x01, b'x'], model(second)].concat();
        let shapes = [("image".to_owned(), vec![2, 3, 8, 9])];
        let outputs = ["out".to_owned()];
        let fixed = with_shapes(Path::new("m"), &bytes, &shapes, &outputs).unwrap();
        assert!(fixed.windows(4).any(|w| w == [0xfa, 0x3f, 0x01, b'x']));
        let graph = Model::decode(&fixed[..]).unwrap().graph.unwrap();
        let sides = [Ok(2), Ok(3), Ok(8), Ok(9)];
        assert_eq!(graph.input, [Value::floats("image", Some(&sides)), seed]);
        assert_eq!(graph.output, [Value::floats("out", None)]);
        assert_eq!(graph.node.len(), 1);
        for end in 1..bytes.len() {
            // Whatever it is, it is refused or read: no panic.
            let _ = with_shapes(Path::new("m"), &bytes[..end], &shapes, &outputs);
        }
        let error = with_shapes(Path::new("m.onnx"), &bytes[..9], &shapes, &outputs).unwrap_err();
        assert!(error.to_string().contains("m.onnx"), "{error}");
    }
}

//! Times resizing, cropping and normalising of decoded images on one thread,
//! for `bench/extract.py`: prints one JSON object with seconds per image, all
//! repetitions.
//!
//! `cargo run --release -p heat-images --example transform_timings --
//! [key=value]...` with the keys `width height side crop n reps`.

use std::time::Instant;

use heat_images::{Image, Resize, Transform, TransformConfig};
use heat_ood::math::rng::{Purpose, Stream};

fn main() {
    let parse = |w: String| {
        let (k, v) = w.split_once('=').expect("key=value");
        (k.to_owned(), v.parse::<usize>().expect("a number"))
    };
    let args: Vec<_> = std::env::args().skip(1).map(parse).collect();
    let get = |key: &str, default: usize| {
        args.iter().rev().find(|(k, _)| k == key).map_or(default, |(_, v)| *v)
    };
    let (width, height) = (get("width", 500), get("height", 375));
    let mut values = vec![0.0; width * height * 3];
    Stream::new(1, Purpose::User, 0, 0).fill_uniform(&mut values, 0.0, 256.0);
    let image = Image { width, height, rgb: values.into_iter().map(|v| v as u8).collect() };
    let config = match get("crop", 224) {
        0 => TransformConfig {
            resize: Some(Resize::Exact([get("side", 32); 2])),
            crop: None,
            ..TransformConfig::imagenet()
        },
        _ => TransformConfig::imagenet(),
    };
    let mut transform = Transform::new(&config).unwrap();
    let n = get("n", 100);
    let mut once = || {
        let start = Instant::now();
        (0..n).for_each(|_| drop(std::hint::black_box(transform.apply(&image).unwrap())));
        start.elapsed().as_secs_f64() / n as f64
    };
    once();
    let seconds: Vec<f64> = (0..get("reps", 5)).map(|_| once()).collect();
    println!("{}", serde_json::json!({ "what": "transform", "seconds": seconds }));
}

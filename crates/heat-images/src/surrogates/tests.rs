//! Each kind against NumPy, SciPy and Pillow (`tests/golden/make_surrogates.py`), and what is drawn.

use std::collections::HashSet;
use std::path::Path;

use super::shapes::{Shape, shapes};
use super::*;
use super::{filters, patches, spectrum};
use crate::{MixedClasses, Resize};
use heat_ood::io::sha256_of;
use heat_ood::math::parallel::{Indices, Pieces, with_threads};

struct Golden(Vec<u8>);

impl Golden {
    fn open() -> Self {
        let file = "tests/golden/surrogates/expected.safetensors";
        Golden(std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap())
    }

    fn bytes(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap();
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }

    fn image(&self, name: &str) -> Image {
        let (shape, rgb) = self.bytes(name);
        Image { width: shape[1], height: shape[0], rgb }
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let values = self.bytes(name).1;
        values.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect()
    }

    fn check(&self, name: &str, got: &Image) {
        assert!(*got == self.image(name), "{name}");
    }

    /// Where Pillow has resized: of a hundred values at most `few` differ, by one.
    fn check_resized(&self, name: &str, got: &Image, few: usize) {
        let want = self.image(name);
        assert_eq!((got.width, got.height), (want.width, want.height), "{name}");
        let differ = got.rgb.iter().zip(&want.rgb).map(|(g, w)| g.abs_diff(*w)).filter(|d| *d > 0);
        let (count, most) = (differ.clone().count(), differ.max().unwrap_or(0));
        assert!(most <= 1 && count * 100 <= few * want.rgb.len(), "{name}: {count}, by {most}");
    }
}

#[test]
fn kinds_are_those_of_numpy_scipy_and_pillow() {
    let golden = Golden::open();
    let (square, other, wide) =
        (golden.image("square"), golden.image("other"), golden.image("wide"));
    let order: Vec<u32> = golden.bytes("order").1.iter().map(|v| u32::from(*v)).collect();
    golden.check("jigsaw4", &patches::rearranged(&square, 4, &order));
    golden.check("wide.jigsaw2", &patches::rearranged(&wide, 2, &[3, 2, 0, 1]));
    golden.check("mixup", &patches::mean(&square, &other));
    golden.check("cutmix", &patches::halves(&square, &other, true));
    golden.check("cutmix.upon", &patches::halves(&square, &other, false));
    golden.check_resized("zoom", &patches::enlarged(&square, 5, 20).unwrap(), 1);
    golden.check_resized("wide.zoom", &patches::enlarged(&wide, 8, 3).unwrap(), 1);
    golden.check("rotate", &patches::turned(&square, 1).unwrap());
    golden.check("wide.rotate", &patches::turned(&wide, 2).unwrap());
    // Enlarged one way and reduced the other, rounded in between.
    golden.check_resized("wide.rotate1", &patches::turned(&wide, 1).unwrap(), 2);
    for (name, image) in [("", &square), ("wide.", &wide)] {
        let (width, height) = (image.width, image.height);
        let named = |what: &str| format!("{name}{what}");
        let check = |what: &str, got: Image| golden.check(&named(what), &got);
        let floats = |what: &str| golden.floats(&named(what));
        check("blur", filters::blurred(image, width.min(height) as f64 / 16.0));
        check("invert", filters::inverted(image));
        check("noise", filters::noisy(image, &floats("values"), 50.0));
        check("edges", filters::edges(image));
        check("phase", spectrum::with_phases_of(&floats("plane"), image));
        check("pink", spectrum::pink(&floats("planes"), 1.25, width, height));
    }
    let mut drawn = Image { width: 21, height: 10, rgb: [10, 20, 30].repeat(210) };
    Shape::Rectangle { x: [2, 15], y: [1, 6] }.draw(&mut drawn, [200, 0, 0]);
    Shape::Ellipse { x: [4, 16], y: [2, 9] }.draw(&mut drawn, [0, 200, 0]);
    Shape::Line { from: [1, 9], to: [19, 0], width: 2.0 }.draw(&mut drawn, [0, 0, 200]);
    golden.check("drawn", &drawn);
}

/// Images that tell by their values which they are.
struct Plain {
    images: usize,
    size: [usize; 2],
    labels: Option<Vec<u32>>,
}

impl ImageDataset for Plain {
    fn name(&self) -> &str {
        "plain"
    }

    fn len(&self) -> usize {
        self.images
    }

    fn label(&self, i: usize) -> Option<u32> {
        Some(self.labels.as_ref()?[i])
    }

    fn place(&self, i: usize) -> String {
        format!("plain/{i}.png")
    }

    fn file(&self, i: usize) -> Option<PathBuf> {
        Some(PathBuf::from(format!("plain/{}", i % 2)))
    }

    fn image(&self, i: usize) -> Result<Image> {
        let [height, width] = self.size;
        let value = |j: usize| ((i * 7 + j * 31) % 251) as u8;
        Ok(Image { width, height, rgb: (0..height * width * 3).map(value).collect() })
    }
}

fn plain(images: usize, size: [usize; 2]) -> Plain {
    Plain { images, size, labels: None }
}

/// As they are.
fn as_they_are() -> TransformConfig {
    TransformConfig { resize: None, crop: None, ..TransformConfig::imagenet() }
}

fn of_all(set: &Plain) -> Sources<'_> {
    Sources::new(set, (0..set.images).collect(), None, Vec::new()).unwrap()
}

#[test]
fn images_do_not_depend_on_threads_and_differ_by_seed_and_number() {
    let set = plain(7, [16, 24]);
    let (sources, transform) = (of_all(&set), as_they_are());
    for kind in Kind::ALL {
        let images = |seed: u64, threads: usize| -> Vec<Image> {
            let made = Surrogates::new(&sources, kind, 20, seed, &transform).unwrap();
            let of = |i: usize| made.image(i).unwrap();
            with_threads(threads, || (0..made.len()).into_par_iter().map(of).collect()).unwrap()
        };
        let once = images(1, 1);
        assert!(once == images(1, 5), "{kind:?}");
        assert!(once.iter().all(|image| (image.width, image.height) == (24, 16)), "{kind:?}");
        // Without choices the sources are not repeated.
        assert_eq!(once.len(), if kind.is_random() { 20 } else { 7 }, "{kind:?}");
        assert!(once != images(2, 1), "{kind:?}: another seed takes another order");
        if kind.is_random() && !matches!(kind, Kind::Rotate | Kind::Cutmix | Kind::Mixup) {
            let different: HashSet<_> = once.iter().map(|image| &image.rgb).collect();
            assert!(different.len() > 17, "{kind:?}: {} of 20 differ", different.len());
        }
    }
}

/// The bytes of every kind on this set, as they were first written: another order of random numbers would make
/// another set of the same seed.
#[test]
fn the_same_seed_gives_the_same_images_for_ever() {
    let set = plain(5, [32, 32]);
    let (sources, transform) = (of_all(&set), as_they_are());
    let digest = |kind: Kind| {
        let made = Surrogates::new(&sources, kind, 5, 3, &transform).unwrap();
        sha256_of((0..made.len()).map(|i| made.image(i).unwrap().rgb))[..12].to_owned()
    };
    let got: Vec<String> =
        Kind::ALL.iter().map(|kind| format!("{} {}", kind.name(), digest(*kind))).collect();
    assert_eq!(got.join("\n"), include_str!("digests.txt").trim_end());
}

#[test]
fn sources_are_taken_once_before_they_are_taken_again() {
    let set = plain(9, [8, 8]);
    let (sources, transform) = (of_all(&set), as_they_are());
    let made = Surrogates::new(&sources, Kind::Noise, 18, 0, &transform).unwrap();
    for round in [0..9, 9..18] {
        let taken: HashSet<usize> = round.map(|i| made.draw(i).first).collect();
        assert_eq!(taken.len(), 9);
    }
    assert!(made.image(0).unwrap() != made.image(9).unwrap());
    assert_eq!(made.image_name(10), format!("noise/00010/plain/{}.png", made.draw(10).first));
    assert_eq!(made.place(10), format!("noise 10 of plain/{}.png", made.draw(10).first));
    assert!(made.file(0).is_some());
}

#[test]
fn pairs_are_of_different_classes() {
    let labels = vec![0, 0, 0, 0, 0, 1, 2, 2, 0, 0];
    let labelled = Plain { labels: Some(labels.clone()), ..plain(10, [8, 8]) };
    let transform = as_they_are();
    let pairs = |sources: &Sources<'_>| -> Vec<[usize; 2]> {
        let made = Surrogates::new(sources, Kind::Mixup, 400, 0, &transform).unwrap();
        let pair = |i: usize| {
            let draw = made.draw(i);
            // Two files tell nothing.
            let same = draw.first % 2 == draw.second.unwrap() % 2;
            assert_eq!(made.file(i).is_some(), same);
            [draw.first, draw.second.unwrap()]
        };
        (0..400).map(pair).collect()
    };
    let by_labels = of_all(&labelled);
    assert_eq!(by_labels.record().classes, MixedClasses::Labels);
    let unlabelled = plain(10, [8, 8]);
    let by_prediction =
        Sources::new(&unlabelled, (0..10).collect(), Some(&labels), Vec::new()).unwrap();
    assert_eq!(by_prediction.record().classes, MixedClasses::Predicted);
    for sources in [&by_labels, &by_prediction] {
        let pairs = pairs(sources);
        assert!(pairs.iter().all(|[a, b]| labels[*a] != labels[*b]));
        // Every image of another class comes up beside image 6, each as often (binomial, 6σ).
        let beside: Vec<usize> = pairs.iter().filter(|p| p[0] == 6).map(|p| p[1]).collect();
        let distinct: HashSet<_> = beside.iter().collect();
        assert_eq!((beside.len(), distinct.len()), (40, 8));
    }
    // Of one class, and without any: any other image.
    let one = Plain { labels: Some(vec![3; 10]), ..plain(10, [8, 8]) };
    for set in [&one, &unlabelled] {
        let sources = of_all(set);
        assert_eq!(sources.record().classes, MixedClasses::None);
        assert!(pairs(&sources).iter().all(|[a, b]| a != b));
    }
}

#[test]
fn what_cannot_be_made_is_refused() {
    let transform = as_they_are();
    let single = plain(1, [8, 8]);
    let sources = of_all(&single);
    let refused = |kind| Surrogates::new(&sources, kind, 5, 0, &transform).err().unwrap();
    assert!(refused(Kind::Mixup).to_string().contains("mixes two images, and there is one"));
    assert!(Surrogates::new(&sources, Kind::Jigsaw8, 5, 0, &transform).unwrap().image(0).is_ok());
    let small = plain(3, [7, 9]);
    let sources = of_all(&small);
    let error = Surrogates::new(&sources, Kind::Jigsaw8, 5, 0, &transform).unwrap().image(0);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("7×9") && error.contains("`jigsaw8` needs 8 pixels"), "{error}");
    let error = Sources::new(&small, Vec::new(), None, Vec::new()).err().unwrap().to_string();
    assert!(error.contains("no image left to make surrogates of"), "{error}");
    let error = Kind::parse(&["jigsaw3"]).unwrap_err().to_string();
    assert!(error.contains("unknown kind of surrogates `jigsaw3`"), "{error}");
    assert_eq!(Kind::parse(&["pink", "blur", "pink"]).unwrap(), [Kind::Blur, Kind::Pink]);
    assert_eq!(Kind::parse(&["blur", "all"]).unwrap(), Kind::ALL);
    assert!(Kind::parse::<&str>(&[]).is_err());
}

/// One pixel, one row, one column: nothing divides by zero.
#[test]
fn the_smallest_images_are_made() {
    let transform = as_they_are();
    for size in [[1, 1], [1, 9], [9, 1], [2, 2], [4, 5]] {
        let set = plain(3, size);
        let sources = of_all(&set);
        for kind in Kind::ALL {
            let made = Surrogates::new(&sources, kind, 3, 0, &transform).unwrap();
            let image = made.image(0);
            assert_eq!(
                image.is_ok(),
                size[0].min(size[1]) >= kind.least_side(),
                "{kind:?} {size:?}"
            );
            if let Ok(image) = image {
                assert_eq!([image.height, image.width], size, "{kind:?}");
            }
        }
    }
}

/// Images that the transform resizes and crops: the surrogate has the size of the crop.
#[test]
fn surrogates_are_made_of_what_the_network_gets() {
    let set = plain(3, [40, 30]);
    let sources = of_all(&set);
    let transform = TransformConfig {
        resize: Some(Resize::Short(20)),
        crop: Some(16),
        ..TransformConfig::imagenet()
    };
    let made = Surrogates::new(&sources, Kind::Invert, 3, 0, &transform).unwrap();
    let source = set.image(made.draw(0).first).unwrap();
    let pixels = Transform::new(&transform).unwrap().pixels(&source).unwrap();
    assert!(made.image(0).unwrap() == filters::inverted(&pixels));
}

/// From one to five, in 600 images about as many of each (binomial, 5σ), on a ground of one colour.
#[test]
fn shapes_are_one_to_five() {
    let mut colours = [0usize; 7];
    for i in 0..600 {
        let image = shapes(32, 32, &mut Stream::new(4, Purpose::User, i, 0));
        let distinct: HashSet<_> = image.rgb.as_chunks::<3>().0.iter().collect();
        colours[distinct.len()] += 1;
    }
    // Shapes may cover each other whole.
    assert!(colours[0] == 0 && colours[1] < 30 && colours[6] > 30, "{colours:?}");
    assert!(colours[2..].iter().all(|n| *n > 30), "{colours:?}");
}

#[test]
fn a_contact_sheet_shows_the_first_images() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sheet.png");
    let set = plain(12, [32, 32]);
    let (sources, transform) = (of_all(&set), as_they_are());
    contact_sheet(&sources, &Kind::ALL, 5, &transform, &file).unwrap();
    let sheet = crate::decode("sheet.png", &std::fs::read(&file).unwrap()).unwrap();
    // Seven letters of twelve pixels; eight images, each pixel three times.
    let (text, cell) = (7 * 12 + 8, 32 * 3 + 4);
    assert_eq!((sheet.width, sheet.height), (text + 8 * cell + 4, 15 * cell + 4));
    let shown = |row: usize, i: usize| -> Vec<u8> {
        let (top, left) = (4 + row * cell + 1, text + i * cell + 1);
        let pixels = (0..32 * 32).flat_map(|p| {
            let at = (top + p / 32 * 3) * sheet.width + left + p % 32 * 3;
            sheet.rgb[at * 3..at * 3 + 3].to_vec()
        });
        pixels.collect()
    };
    assert!(shown(0, 7) == set.image(7).unwrap().rgb);
    for (row, kind) in Kind::ALL.iter().enumerate() {
        let made = Surrogates::new(&sources, *kind, 1500, 5, &transform).unwrap();
        assert!(shown(row + 1, 7) == made.image(7).unwrap().rgb, "{kind:?}");
    }
    // Every letter of a name is drawn.
    let ink = |row: usize| {
        let rows = sheet.rgb.chunks_exact(sheet.width * 3).skip(4 + row * cell).take(cell);
        rows.flat_map(|r| r[..text * 3].chunks(12 * 3)).filter(|part| part.contains(&0)).count()
    };
    assert!((0..15).all(|row| ink(row) > 0));
}

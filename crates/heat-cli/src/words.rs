//! The command's answers to what went wrong: which option or command helps.
//!
//! The library knows no command line; its errors say what was wrong, and what is said here
//! is found by their words.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use heat_ood::scorers::catalogue;
use heat_ood::{printable, recipe};

/// Words of the library's errors, and the option that gives what they ask for.
const OPTIONS: [(&str, &str); 21] = [
    ("the classifier's last layer", "`--head FILE`"),
    ("the classifier's head", "`--head FILE`"),
    ("class indices", "`--labels FILE`"),
    ("labels of a part do not tell", "`--classes N`"),
    ("feature dimension D", "`--dim D`"),
    ("allow replacing it", "`--force`"),
    ("is replaced", "`--force`"),
    ("took no part in training, or insist", "`--drop-seen` leaves them out"),
    ("or insist", "`--force`"),
    ("give the training set again", "`--train FEATURES`"),
    ("resume it", "`--resume`"),
    ("near and far sets", "`--near, --far`"),
    ("write it as `f32`", "`--dtype f32`"),
    ("write it as `f64`", "`--dtype f64`"),
    ("write it as `bf16` or `f32`", "`--dtype f32`"),
    ("memory limit", "`--memory SIZE`"),
    ("of memory, and", "`--memory SIZE`"),
    ("say which form it is", "`--to FORM`"),
    ("leave this kind out", "`--surrogates KIND,…`"),
    ("leave out fewer sets", "`--exclude SET`"),
    ("fewer images at a time", "`--batch-size N`, of `heat run` `--network-batch N`"),
];

/// What a file was found to be, and what to do with it. The first that fits counts.
const KINDS: [(&str, &str); 31] = [
    (
        "is an ONNX network",
        "`heat extract IMAGES --backbone FILE -o DIR` makes features with it, `heat backbone inspect FILE` shows it",
    ),
    (
        "is a PyTorch checkpoint",
        "`heat import FILE` takes an energy network of the published code, `heat extract --backbone FILE` a ResNet; of features `np.save(\"features.npy\", x.numpy())`",
    ),
    ("is a TorchScript program", "export the network to ONNX, for `heat extract --backbone FILE`"),
    ("is a Keras model", "export the network to ONNX, for `heat extract --backbone FILE`"),
    (
        "is a Python pickle",
        "pickles are not read, because they run code: load it in Python, then `np.save(\"features.npy\", x)`",
    ),
    (
        "is an image",
        "`heat extract DIRECTORY --backbone MODEL -o DIR` makes features of images, `heat score DETECTOR IMAGES --backbone MODEL` scores them",
    ),
    (
        "is an HDF5 file",
        "in Python: `import h5py, numpy as np; np.save(\"features.npy\", h5py.File(\"FILE\")[\"NAME\"][:])`",
    ),
    (
        "is a MATLAB file",
        "in Python: `import scipy.io, numpy as np; np.save(\"features.npy\", scipy.io.loadmat(\"FILE\")[\"NAME\"])`",
    ),
    (
        "is a Parquet file",
        "in Python: `import pandas, numpy as np; np.save(\"features.npy\", pandas.read_parquet(\"FILE\").to_numpy(\"float32\"))`",
    ),
    (
        "is a Feather",
        "in Python: `import pandas, numpy as np; np.save(\"features.npy\", pandas.read_feather(\"FILE\").to_numpy(\"float32\"))`",
    ),
    ("is an HTML page", "download it again, with the address of the file itself"),
    ("is a Git LFS pointer", "`git lfs pull` brings the file"),
    ("is a tar archive", "`heat extract` reads images in archives; unpack what else is in it"),
    ("is a zip archive", "`heat extract` reads images in archives; unpack what else is in it"),
    ("is a gzip file", "`gunzip` it; `heat extract` reads images in .tar.gz"),
    ("is a bzip2 file", "unpack it first"),
    ("is an xz file", "unpack it first"),
    ("is a zstd file", "unpack it first"),
    (
        "is a JSON text",
        "`heat report` takes the results of `heat eval --format json`, `heat watch` JSON lines",
    ),
    ("is a CSV text", "give its name the ending .csv"),
    // Where a detector is expected.
    (
        ".npy: is an .npy array, not a safetensors",
        "`heat fit` and `heat train` make detectors of features",
    ),
    (
        ".npz: is an .npz archive, not a safetensors",
        "`heat fit` and `heat train` make detectors of features",
    ),
    ("is an .npy array, not a safetensors", "give its name the ending .npy"),
    ("is an .npy array, not an .npz", "give its name the ending .npy"),
    ("is an .npz archive, not a safetensors", "give its name the ending .npz"),
    ("is an .npz archive, not an .npy", "give its name the ending .npz"),
    ("is a safetensors file, not an .np", "give its name the ending .safetensors"),
    // Where images are.
    (
        "an ONNX network; expected a directory of images",
        "it is given with `--backbone FILE`, beside the images",
    ),
    (
        "a safetensors file; expected a directory of images",
        "`heat info FILE` says what is in it; features are what `heat fit` and `heat train` take",
    ),
    ("not a detector", "`heat fit` and `heat train` make detectors"),
    ("not features", "is the order of the arguments right? `heat COMMAND --help` tells"),
];

/// An error of the library with the options that help.
pub fn with_help(text: String) -> String {
    let mut help: Vec<&str> = Vec::new();
    for (words, option) in OPTIONS {
        if text.contains(words) && !help.contains(&option) {
            help.push(option);
        }
    }
    let text = if help.is_empty() { text } else { format!("{text} ({})", help.join(", ")) };
    match KINDS.iter().find(|(words, _)| text.contains(words)) {
        Some((_, advice)) => format!("{text}: {advice}"),
        None => text,
    }
}

/// Words of the published code's commands, and what is used here in their place.
const PUBLISHED: [(&str, &str); 16] = [
    ("train_ebm", "`heat train ebm=heat_gmm_c10 … --train FEATURES`"),
    ("eval_scorers", "`heat eval --id FEATURES --ood NAME=FEATURES --detectors FILE…`"),
    (
        "compute_features",
        "`heat extract IMAGES --backbone MODEL -o DIR` (`heat convert` reads features that the published code computed)",
    ),
    (
        "--ckpts",
        "`--detectors FILE…`; `heat import FILE.pt` makes a detector of a published checkpoint",
    ),
    (
        "--ckpt",
        "`--detectors FILE…`; `heat import FILE.pt` makes a detector of a published checkpoint",
    ),
    (
        "--config_file",
        "nothing: a detector file holds its recipe; `--train`, `--head`, `--id`, `--ood` give the data",
    ),
    (
        "--config-file",
        "nothing: a detector file holds its recipe; `--train`, `--head`, `--id`, `--ood` give the data",
    ),
    ("--dir", "`-o FILE` or `--out DIR`"),
    ("--data_dir", "the directory of images itself: `heat extract IMAGES …`"),
    ("--out_dir", "`-o DIR` or `--out DIR`"),
    ("--model_id", "`--backbone FILE`, an ONNX file or weights of a ResNet"),
    ("--multirun", "`heat sweep`: lists of values, one run each"),
    ("-m", "`heat sweep`: lists of values, one run each"),
    ("-s", "`heat completions bash` (of `-sc install=bash`)"),
    ("--batch_size", "`batch_size=N`"),
    ("--seed_everything", "`seed=N`"),
];

/// Say in clap's error what helps, where it is known better than by likeness of names.
pub fn explain(error: &mut clap::Error, args: &[OsString]) {
    let wrong = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.clone()),
        _ => None,
    };
    let tip = match error.kind() {
        ErrorKind::InvalidSubcommand => wrong(ContextKind::InvalidSubcommand).and_then(|word| {
            let word = word.rsplit(['/', '\\']).next()?.trim_end_matches(".py").replace('-', "_");
            published(&word)
        }),
        ErrorKind::UnknownArgument => wrong(ContextKind::InvalidArg).and_then(|word| {
            let word = word.split('=').next()?.to_owned();
            published(&word).or_else(|| setting(&word, args))
        }),
        _ => None,
    };
    if let Some(tip) = tip {
        for kind in [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand] {
            error.remove(kind);
        }
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
}

/// Make the words of the command line that clap's error repeats fit for a terminal: they may be
/// names of files, spelled out by a shell's `*`.
pub fn tame(error: &mut clap::Error) {
    let tamed = |value: &ContextValue| match value {
        ContextValue::String(word) => Some(ContextValue::String(printable(word))),
        ContextValue::Strings(words) => {
            Some(ContextValue::Strings(words.iter().map(|word| printable(word)).collect()))
        }
        // Tips, whose own colours go with what had to be changed.
        ContextValue::StyledStrs(tips) => {
            let plain = |tip: &StyledStr| {
                let text = tip.to_string();
                let tamed = printable(&text);
                if tamed == text { tip.clone() } else { tamed.into() }
            };
            Some(ContextValue::StyledStrs(tips.iter().map(plain).collect()))
        }
        _ => None,
    };
    let all: Vec<_> =
        error.context().filter_map(|(kind, value)| Some((kind, tamed(value)?))).collect();
    for (kind, value) in all {
        error.insert(kind, value);
    }
}

fn published(word: &str) -> Option<String> {
    let (_, here) = PUBLISHED.iter().find(|(old, _)| *old == word)?;
    Some(format!("`{word}` is a word of the published code; here it is {here}"))
}

/// A setting that was written as an option, for the command of these arguments.
fn setting(word: &str, args: &[OsString]) -> Option<String> {
    let name = word.trim_start_matches('-').replace('-', "_");
    let mut words = args.iter().skip(1).map(|a| a.to_string_lossy());
    let command = words.find(|w| !w.starts_with('-'))?;
    let of_scorers = || catalogue().iter().any(|l| l.settings.iter().any(|(key, _)| *key == name));
    let of_recipes =
        || recipe::keys().iter().any(|key| *key == name || key.ends_with(&format!(".{name}")));
    match &*command {
        "fit" if of_scorers() => {
            Some(format!("settings of a scorer have no dashes: `heat fit SCORER {name}=VALUE …`"))
        }
        "eval" | "select" | "report" | "run" if of_scorers() => Some(format!(
            "settings of a scorer stand in brackets after it: `--scorers 'SCORER({name}=VALUE)'`"
        )),
        "train" | "sweep" | "import" | "run" if of_recipes() => {
            let key = recipe::keys().into_iter().find(|key| key.ends_with(&name))?;
            Some(format!("settings of a recipe have no dashes: `heat {command} {key}=VALUE …`"))
        }
        _ => None,
    }
}

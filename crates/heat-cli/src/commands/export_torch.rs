//! `heat export`: the network of a detector, for PyTorch.

use anyhow::Result;
use heat_ood::ebm::torch;
use heat_ood::io::TensorFile;

use super::{detector_file, refuse_overwriting, wrote};
use crate::args::ExportArgs;
use crate::progress::Progress;

pub fn run(args: &ExportArgs, progress: &mut Progress) -> Result<()> {
    refuse_overwriting(Some(&args.output), &[&args.detector])?;
    let net = torch::network(&TensorFile::open(&detector_file(&args.detector)?)?)?;
    torch::write(&args.output, &net)?;
    wrote(progress, &args.output);
    Ok(())
}

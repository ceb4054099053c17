//! Write the sound files from which fuzzing starts to `corpus/TARGET/`.

use std::fs;

fn main() -> std::io::Result<()> {
    for (reader, _) in heat_fuzz::all_readers() {
        let work = tempfile::tempdir()?;
        let directory = format!("{}/corpus/{reader}", env!("CARGO_MANIFEST_DIR"));
        fs::create_dir_all(&directory)?;
        for (i, bytes) in heat_fuzz::all_seeds(reader, work.path()).iter().enumerate() {
            fs::write(format!("{directory}/seed-{i:02}"), bytes)?;
        }
    }
    Ok(())
}

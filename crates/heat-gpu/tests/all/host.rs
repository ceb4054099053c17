//! A device made of the kernels themselves, built for the processor under the sanitizers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use heat_gpu::device::Device;
use heat_gpu::launch::{Arg, Launch, THREADS};
use heat_gpu::plan::{At, Op, Plan, Slot};
use heat_ood::{Error, Result};

/// The program, built once; `None` without a C++ compiler.
fn program() -> Option<&'static PathBuf> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAM
        .get_or_init(|| {
            let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
            if Command::new(&compiler).arg("--version").output().is_err() {
                return None;
            }
            let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
            let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("kernels-on-the-processor");
            let kernels = root.join("src/kernels/kernels.cu");
            let done = Command::new(compiler)
                .args([
                    "-std=c++20",
                    "-O1",
                    "-g",
                    "-Wall",
                    "-Wno-unknown-pragmas",
                    "-ffp-contract=off",
                ])
                .args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-pthread"])
                .arg(format!("-DKERNELS=\"{}\"", kernels.display()))
                .arg("-o")
                .arg(&out)
                .arg(root.join("tests/all/host.cpp"))
                .output()
                .unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            Some(out)
        })
        .as_ref()
}

/// Kernels in a process of their own.
pub struct Host {
    process: Child,
    sizes: BTreeMap<Slot, usize>,
    forgiven: bool,
}

fn number(slot: Slot) -> u32 {
    match slot {
        Slot::Rows => 0,
        Slot::Labels => 1,
        Slot::Key => 2,
        Slot::Parameters => 3,
        Slot::ParameterGradient => 4,
        Slot::Gradient => 5,
        Slot::Energies => 6,
        Slot::Centred => 7,
        Slot::White => 8,
        Slot::Noise => 9,
        Slot::Responsibilities => 10,
        Slot::PartialSums => 11,
        Slot::Centre => 12,
        Slot::Means => 13,
        Slot::Whiten => 14,
        Slot::Colour => 15,
        Slot::Directions => 16,
        Slot::Offset => 17,
        Slot::Delta(i) => 20 + i as u32,
        Slot::Activation(i) => 100 + i as u32,
    }
}

impl Host {
    /// `None`, with a line that says so, without a C++ compiler.
    pub fn new(test: &str) -> Option<Host> {
        let Some(program) = program() else {
            println!("skipped: {test} (no C++ compiler: install g++)");
            return None;
        };
        let process = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .env("ASAN_OPTIONS", "detect_leaks=0")
            .spawn()
            .unwrap();
        Some(Host { process, sizes: BTreeMap::new(), forgiven: false })
    }

    /// It may end as it likes.
    pub fn forgive(&mut self) {
        self.forgiven = true;
    }

    fn tell(&mut self, what: u8, parts: &[&[u8]]) -> Result<()> {
        let input = self.process.stdin.as_mut().unwrap();
        let mut all = vec![what];
        parts.iter().for_each(|part| all.extend_from_slice(part));
        input.write_all(&all).map_err(|e| Error::device("host", format!("the kernels ended: {e}")))
    }

    fn bytes(&mut self, slot: Slot, values: &[u8]) -> Result<()> {
        self.tell(
            b'p',
            &[&number(slot).to_le_bytes(), &(values.len() as u64).to_le_bytes(), values],
        )
    }

    pub fn launch(&mut self, launch: &Launch) -> Result<()> {
        let mut all = Vec::new();
        let mut word = |v: usize| all.extend_from_slice(&(v as u32).to_le_bytes());
        word(launch.kernel.len());
        all.extend_from_slice(launch.kernel.as_bytes());
        for v in [launch.grid.0, launch.grid.1, THREADS as u32, launch.args.len() as u32] {
            all.extend_from_slice(&v.to_le_bytes());
        }
        for arg in &launch.args {
            let plain = match *arg {
                Arg::At(At { slot, offset }, _) => {
                    all.push(b'a');
                    all.extend_from_slice(&number(slot).to_le_bytes());
                    all.extend_from_slice(
                        &((offset * slot.elements().bytes()) as u64).to_le_bytes(),
                    );
                    continue;
                }
                Arg::Null => 0,
                Arg::U32(v) => u64::from(v),
                Arg::U64(v) => v,
                Arg::F32(v) => u64::from(v.to_bits()),
            };
            all.push(b'v');
            all.extend_from_slice(&plain.to_le_bytes());
        }
        self.tell(b'k', &[&all])
    }

    fn apply(&mut self, op: &Op) -> Result<()> {
        let Op::Product(p) = op else {
            let launch = Launch::of(op).map_err(|e| Error::device("host", e))?;
            return launch.map_or(Ok(()), |launch| self.launch(&launch));
        };
        let mut all = Vec::new();
        for At { slot, offset } in [p.a, p.b, p.out] {
            all.extend_from_slice(&number(slot).to_le_bytes());
            all.extend_from_slice(&((offset * slot.elements().bytes()) as u64).to_le_bytes());
        }
        for v in [p.m, p.n, p.k] {
            all.extend_from_slice(&(v as u64).to_le_bytes());
        }
        for v in [p.a_transposed, p.b_transposed] {
            all.extend_from_slice(&u32::from(v).to_le_bytes());
        }
        for v in [p.alpha, p.beta] {
            all.extend_from_slice(&v.to_le_bytes());
        }
        self.tell(b'm', &[&all])
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its input ends here, and so does it; what a sanitizer found fails the test.
        drop(self.process.stdin.take());
        let status = self.process.wait().unwrap();
        assert!(status.success() || self.forgiven || std::thread::panicking(), "{status}");
    }
}

impl Device for Host {
    type Program = Plan;

    fn name(&self) -> String {
        "host".into()
    }

    fn reserve(&mut self, slots: &[(Slot, usize)]) -> Result<bool> {
        let mut moved = false;
        for &(slot, len) in slots {
            let size = self.sizes.get(&slot).copied();
            if size.is_none_or(|size| size < len) {
                moved |= size.is_some();
                self.sizes.insert(slot, len);
                let bytes = (len * slot.elements().bytes()) as u64;
                self.tell(b'r', &[&number(slot).to_le_bytes(), &bytes.to_le_bytes()])?;
            }
        }
        Ok(moved)
    }

    fn put(&mut self, slot: Slot, values: &[f32]) -> Result<()> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.bytes(slot, &bytes)
    }

    fn put_words(&mut self, slot: Slot, values: &[u32]) -> Result<()> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.bytes(slot, &bytes)
    }

    fn take(&mut self, slot: Slot, out: &mut [f32]) -> Result<()> {
        let mut bytes = vec![0; out.len() * 4];
        self.tell(b't', &[&number(slot).to_le_bytes(), &(bytes.len() as u64).to_le_bytes()])?;
        let output = self.process.stdout.as_mut().unwrap();
        output
            .read_exact(&mut bytes)
            .map_err(|e| Error::device("host", format!("the kernels ended: {e}")))?;
        for (o, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
            *o = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        }
        Ok(())
    }

    fn prepare(&mut self, plan: &Plan) -> Result<Plan> {
        Ok(plan.clone())
    }

    fn run(&mut self, program: &Plan) -> Result<()> {
        program.ops.iter().try_for_each(|op| self.apply(op))
    }
}

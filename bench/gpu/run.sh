#!/usr/bin/env bash
# Everything to be shown on a card, in at most six minutes. Built before, on any machine with Rust:
#   bench/gpu/build.sh OUT
# and then, on the machine with the card (Python with PyTorch, whose CUDA libraries are used):
#   bench/gpu/run.sh OUT [PYTHON]
set -uo pipefail
out=$1 python=${2:-python3}
cd "$(dirname "$0")/../.."
# NVRTC and cuBLASLt as PyTorch brought them.
packages=$("$python" -c 'import site; print(" ".join(site.getsitepackages()))')
for directory in $packages; do
    for library in "$directory"/nvidia/*/lib; do
        [ -d "$library" ] && LD_LIBRARY_PATH="$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    done
done
export LD_LIBRARY_PATH
failed=0
# What is left of six minutes.
part() {
    local limit=$1 name=$2 left=$((360 - SECONDS))
    shift 2
    echo "== $name"
    if [ "$left" -le 0 ]; then
        echo "FAILED (no time left): $name"
        failed=1
        return
    fi
    if [ "$limit" -gt "$left" ]; then limit=$left; fi
    timeout "$limit" "$@" || { echo "FAILED ($?): $name"; failed=1; }
}
part 20 "card" nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total,clocks.max.sm --format=csv
part 90 "the card against the processor" env HEAT_REQUIRE_GPU=1 "$out/driver" --test-threads 1
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
if [ -n "$sanitizer" ]; then
    for tool in memcheck racecheck; do
        part 60 "$tool" "$sanitizer" --tool "$tool" --error-exitcode 9 "$out/steps" cuda:0 tf32 small
    done
else
    echo "skipped: memcheck, racecheck (no compute-sanitizer)"
fi
for precision in tf32 f32; do part 40 "steps, $precision" "$out/steps" cuda:0 "$precision"; done
# A small recipe: the card's AUROC beside the processor's of two seeds.
data=crates/heat-cli/data/cifar10-densenet
for run in "cpu 0" "cpu 1" "cuda 0"; do
    read -r device seed <<<"$run"
    # shellcheck disable=SC2086
    part 60 "train, $device, seed $seed" "$out/heat" train ebm=quickstart_gmm "seed=$seed" --train $data/train.safetensors \
        --device "$device" --out "$out/run-$device-$seed"
    part 20 "evaluate" "$out/heat" eval --id $data/test.safetensors --ood mnist=$data/ood_mnist.safetensors \
        cifar100=$data/ood_cifar100.safetensors --detectors "$out/run-$device-$seed/detector.safetensors"
done
# Last: compiling takes what there is.
part 200 "PyTorch" "$python" bench/gpu/baseline.py cuda
exit $failed

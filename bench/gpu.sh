#!/usr/bin/env bash
# Tests and measures on a machine with an NVIDIA GPU, CUDA 13 and torch 2.11, without a network. The
# libraries are built elsewhere and carried: bench/gpu.sh --pack makes build/gpu/ (libraries with the
# few shared objects they need beside them); there, bench/gpu.sh runs everything and prints a table.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-build/gpu-results}

if [ "${1:-}" = --pack ]; then
    rm -rf build/gpu && mkdir -p build/gpu
    cp -L build/libfeatinv.so build/libfeatinv.so.0 build/libfeatinv-torch.so \
        build/libfeatinv-cuda.so build/featinv build/gpu/
    strip -g build/gpu/*
    for library in $(ldd build/featinv build/libfeatinv.so |
        awk '/libpng|libjpeg|libz\.|libjansson|libcrypto/ {print $3}' | sort -u); do
        cp -L "$library" build/gpu/
    done
    du -sh build/gpu
    exit
fi

python=${PYTHON:-python3}
torch=$($python -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])")
printf 'torch_version=2.11.0\ntorch_lib=%s/lib\n' "$torch" > build/gpu/libfeatinv-torch.conf
export FEATINV_BUILD=$PWD/build/gpu LD_LIBRARY_PATH=$PWD/build/gpu OMP_WAIT_POLICY=passive
export FEATINV_MODEL=$PWD/models/scenes FEATINV_REFERENCE=$PWD/tests/data PYTHONPATH=$PWD/bindings/python
mkdir -p "$out"
build/gpu/featinv doctor | tee "$out/doctor.txt"
$python bench/gpu_parity.py --json "$out/parity.json"
for dtype in fp32 bf16; do
    $python bench/steps.py --device cuda --dtype $dtype --lanes 1,32 --repeat 2 --steps 20 \
        --json "$out/steps-scenes-$dtype.json"
done
if [ -n "${FULL:-}" ]; then # 5 GB of weights, made here by rule
    [ -e "$FULL/manifest.json" ] || $python -m featinv.export checkpoint \
        --config tests/data/featinv/minisd-convnext.yaml --weights rule: --backbone none \
        --map 9,9 -o "$FULL"
    for dtype in fp32 bf16; do
        $python bench/steps.py --bundle "$FULL" --device cuda --dtype $dtype --lanes 1,32 \
            --repeat 2 --steps 10 --json "$out/steps-full-$dtype.json"
    done
fi

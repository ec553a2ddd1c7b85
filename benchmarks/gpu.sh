#!/usr/bin/env bash
# What a GPU does with jaxwiz, in one command of under ten minutes: kernels' self-check and times, the train step of a
# 1.1B model and of the largest that fits, decoding against its floor, and a short training. Results go to OUT.
#   benchmarks/gpu.sh                  # PYTHON=python3 OUT=benchmarks/results/gpu
#   SMALL=1 benchmarks/gpu.sh          # the same suites in tiny shapes, to see on any machine that they run
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-benchmarks/results/gpu}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.95}
mkdir -p "$OUT"

failed=()
suite() { # name, seconds it may take, command: one that fails doesn't keep the others from running
  printf '\n=== %s ===\n' "$1"
  timeout --signal=INT "$2" "$PYTHON" "${@:3}" --out "$OUT/$1.json" || failed+=("$1")
}

if [ -n "${SMALL:-}" ]; then
  shape=(--rows 2 --length 128 --dtype float32)
  suite kernels 120 benchmarks/attention.py "${shape[@]}" --heads 4 --kv-heads 2 --head-dim 64 --rounds 1
  suite train-1b 300 benchmarks/train.py configs/model/tiny.yaml "${shape[@]}" --attention cudnn auto --steps 1
  suite decode 120 benchmarks/sample.py configs/model/tiny.yaml --slots 1 2 --prompt-tokens 8 --new-tokens 8
  suite training 300 benchmarks/short_training.py --width 128 --length 512 --rows 2 --steps 60
else
  shape=(--length 2048 --dtype bfloat16)
  kernels=(pallas cudnn xla)
  suite kernels 60 benchmarks/attention.py "${shape[@]}" --rows 8 --heads 32 --kv-heads 4 --head-dim 64
  suite kernels-128 60 benchmarks/attention.py "${shape[@]}" --rows 4 --heads 32 --kv-heads 8 --head-dim 128
  suite train-1b 150 benchmarks/train.py configs/model/tinyllama-1.1b.yaml "${shape[@]}" --rows 8 --remat dots \
    --attention "${kernels[@]}"
  suite train-largest 150 benchmarks/train.py configs/model/llama-3b-wide.yaml "${shape[@]}" --rows 4 --remat full \
    --attention "${kernels[@]:0:2}" --fit-layers
  suite decode 150 benchmarks/sample.py configs/model/tinyllama-1.1b.yaml --dtype bfloat16 --slots 1 16 64 256
  suite training 90 benchmarks/short_training.py --attention reference "${kernels[@]}"
fi

if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi

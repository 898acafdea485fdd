#!/usr/bin/env bash
# What a GPU can do, in one call of nine minutes, the most telling first; each part has its own time limit.
#
#   benches/gpu.sh PROGRAM PREPARED OUT [DEVICE]
#
# PROGRAM is `latentr3` built with the device's feature and `kernel-cache`, PREPARED a folder that `latentr3 prepare` made, DEVICE `cuda`
# if not given. OUT gets a JSON file and a log for each part, and `summary.txt`: seconds a step by part. With a Python that has PyTorch
# and transformers (`PYTHON`, `python3` if not set), the same steps run in benches/pytorch/peer.py on the same card.
# `TINY=1` takes models of a few columns and one step each, to try the script without a card.
set -uo pipefail
[ $# -ge 3 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
program=$1 prepared=$2 out=$3 device=${4:-cuda}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
torch=$([ "$device" = cuda ] && echo cuda || echo cpu)
mkdir -p "$out/models"
: >"$out/summary.txt"

# part NAME SECONDS COMMAND...
part() {
    local name=$1 limit=$2 start=$SECONDS code=0
    shift 2
    timeout "$limit" "$@" >"$out/$name.json" 2>"$out/$name.log" || code=$?
    python3 - "$out/$name.json" "$name" "$code" "$((SECONDS - start))" <<'PY' | tee -a "$out/summary.txt"
import json, statistics, sys
path, name, code, seconds = sys.argv[1:]
try:
    found = json.loads(open(path).read().strip().splitlines()[-1])
    steps = found.get("step_s", [])
    told = f"median {statistics.median(steps):.4f} s, fastest {min(steps):.4f} s" if steps else f"{found.get('users_per_s', '?')} users/s"
    told += "".join(f", {key} {found[key][-1]}" for key in ("launches", "new_kernels", "uploads", "downloads") if steps and key in found)
except ValueError:
    told = {"0": "done", "124": "out of time"}.get(code, "failed")
print(f"{name:40} {told} ({seconds} s in all)")
PY
}

model() {
    local name=$1
    shift
    "$program" init --tokenizer "$prepared/tokenizer.json" --out "$out/models/$name" --quiet "$@"
}

if [ "${TINY:-}" ]; then
    steps=1 warm=0 batch=4 rollouts=8 users=2 large=()
    model small --hidden 32 --layers 1 --ff 48
else
    steps=20 warm=5 batch=32 rollouts=64 users=16
    large=("135M --hidden 576 --layers 30 --heads 9 --kv-heads 3 --ff 1536" "1.5B --hidden 1536 --layers 28 --heads 12 --kv-heads 2 --ff 8960")
    model small --hidden 256 --layers 4 --ff 768
fi
python3 "$here/pytorch/tokens.py" "$prepared" "$out/tokens"
train=$out/tokens/train.jsonl test=$out/tokens/test.jsonl

ours() { # NAME SECONDS WHAT MODEL more...
    local name=$1 limit=$2 what=$3 model=$4
    shift 4
    part "$name" "$limit" "$program" bench "$what" --model "$out/models/$model" --device "$device" "$@"
}
# Of the yardstick the objective `vocabulary`: its mask of the catalog is made on the host.
theirs() { # NAME SECONDS WHAT MODEL more...
    local name=$1 limit=$2 what=$3 model=$4
    shift 4
    "$python" -c "import torch, transformers" 2>/dev/null || return 0
    part "$name" "$limit" "$python" "$here/pytorch/peer.py" "$what" --model "$out/models/$model" --device "$torch" "$@"
}

both=(--steps "$steps") own=(--warm-up "$warm" --objective vocabulary)
for rows in repeated changing; do
    repeat=$([ $rows = repeated ] && echo --repeat)
    ours "small-sft-$rows" 60 sft small --tokens "$train" --batch "$batch" --micro "$batch" "${both[@]}" "${own[@]}" $repeat
    ours "small-grpo-$rows" 60 grpo small --tokens "$train" --batch "$rollouts" "${both[@]}" "${own[@]}" $repeat
done
for mode in shared naive; do
    theirs "small-sft-pytorch-$mode" 30 sft small --tokens "$train" --batch "$batch" --micro "$batch" "${both[@]}" --mode $mode
    theirs "small-grpo-pytorch-$mode" 30 grpo small --tokens "$train" --batch "$rollouts" "${both[@]}" --mode $mode
done
ours small-evaluation 40 eval small --tokens "$test" --users "$users" --batch "$users"
theirs small-evaluation-pytorch 30 eval small --tokens "$test" --users "$users" --batch "$users" --mode shared
part check 60 "$program" devices --check --json /dev/stdout
for sizes in "${large[@]}"; do
    read -ra words <<<"$sizes"
    name=${words[0]}
    model "$name" "${words[@]:1}"
    for precision in bf16 f32; do
        ours "$name-sft-$precision" 60 sft "$name" --tokens "$train" --batch 32 --micro 32 --steps 5 --warm-up 2 --objective vocabulary --precision $precision
    done
    theirs "$name-sft-bf16-pytorch" 40 sft "$name" --tokens "$train" --batch 32 --micro 32 --steps 5 --mode shared --dtype bf16
    ours "$name-grpo-bf16" 40 grpo "$name" --tokens "$train" --steps 5 --warm-up 2 --objective vocabulary --precision bf16
    ours "$name-evaluation-bf16" 40 eval "$name" --tokens "$test" --users 16 --batch 16 --precision bf16
done
# With the kernels that the parts before it left in the cache.
ours small-sft-second-start 30 sft small --tokens "$train" --batch "$batch" --micro "$batch" "${both[@]}" --objective vocabulary

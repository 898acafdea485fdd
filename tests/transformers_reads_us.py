#!/usr/bin/env python3
"""Checks that transformers loads a folder that we wrote and computes the same.

    python3 -m venv venv && venv/bin/pip install torch transformers safetensors
    venv/bin/python tests/transformers_reads_us.py target/release/latentr3 MODEL

MODEL is a Hugging Face folder of a model without thoughts, for instance latentr3-demo/trial/pretrain/best.
"""
import json
import math
import random
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM

program, folder = sys.argv[1:]
model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
missing = [name for name in report["missing_keys"] if name != "lm_head.weight"]
assert not missing, f"transformers misses {missing}"
model.eval()

rng = random.Random(0)
vocabulary = model.config.vocab_size
token = lambda: rng.randrange(vocabulary)
rows = [{"prompt": [token() for _ in range(n)], "target": [token() for _ in range(m)]} for n, m in ((5, 3), (9, 1), (17, 6))]
with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    file.write("\n".join(map(json.dumps, rows)))
    file.flush()
    output = subprocess.run([program, "score", "--objective", "vocabulary", "--model", folder, "--tokens", file.name], check=True, capture_output=True, text=True)
ours = [json.loads(line)["log_probs"] for line in output.stdout.splitlines()]
worst = 0.0
with torch.no_grad():
    for row, own in zip(rows, ours, strict=True):
        ids = torch.tensor([row["prompt"] + row["target"]])
        scores = model(ids).logits[0, len(row["prompt"]) - 1 : -1].double().log_softmax(-1)
        theirs = scores.gather(-1, torch.tensor(row["target"])[:, None])[:, 0]
        assert all(map(math.isfinite, own)), own
        worst = max(worst, (theirs - torch.tensor(own).double()).abs().max().item() / theirs.abs().max().item())
assert worst < 1e-4, f"relative error {worst:.1e}"
print(f"transformers computes the same: relative error {worst:.1e}")

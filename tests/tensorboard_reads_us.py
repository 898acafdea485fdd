#!/usr/bin/env python3
"""Checks that TensorBoard reads what `latentr3 export tensorboard` writes, value by value.

    python3 -m venv venv && venv/bin/pip install tensorboard
    venv/bin/python tests/tensorboard_reads_us.py target/release/latentr3 RUN
"""
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

program, run = sys.argv[1:]
logged = {}
with open(os.path.join(run, "metrics.jsonl")) as file:
    for line in map(json.loads, file):
        for name, value in line.items():
            for key, one in value.items() if isinstance(value, dict) else [(None, value)]:
                if isinstance(one, (int, float)) and not isinstance(one, bool):
                    logged.setdefault(f"{name}/{key}" if key else name, []).append((line["step"], one))
with tempfile.TemporaryDirectory() as folder:
    subprocess.run([program, "export", "tensorboard", run, "--out", folder, "--quiet"], check=True)
    [name] = os.listdir(folder)
    events = EventAccumulator(os.path.join(folder, name), size_guidance={SCALARS: 0})
    events.Reload()
single = lambda value: struct.unpack("f", struct.pack("f", value))[0]
assert set(events.Tags()["scalars"]) == set(logged), set(events.Tags()["scalars"]) ^ set(logged)
for name, values in logged.items():
    found = [(event.step, event.value) for event in events.Scalars(name)]
    assert found == [(step, single(value)) for step, value in values], name
    assert all(math.isfinite(event.wall_time) for event in events.Scalars(name))
print(f"TensorBoard reads {sum(map(len, logged.values()))} values of {len(logged)} metrics")

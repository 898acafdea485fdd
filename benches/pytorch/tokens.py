#!/usr/bin/env python3
"""Token files for `latentr3 bench` and peer.py from a folder that `latentr3 prepare` made.

  tokens.py PREPARED OUT

OUT/train.jsonl holds the first 2,000 training rows, OUT/test.jsonl the first 500 test rows after the catalog.
"""
import json, os, sys

if len(sys.argv) != 3:
    sys.exit(__doc__)
prepared, out = sys.argv[1:]
read = lambda name: [json.loads(line) for line in open(os.path.join(prepared, name))]
catalog = [item["tokens"] for item in read("catalog.jsonl")]
os.makedirs(out, exist_ok=True)
for name, most in (("train", 2000), ("test", 500)):
    with open(os.path.join(out, name + ".jsonl"), "w") as file:
        if name == "test":
            file.write(json.dumps({"catalog": catalog, "eos": catalog[0][-1]}) + "\n")
        for row in read(name + ".jsonl")[:most]:
            file.write(json.dumps({"prompt": row["prompt"], "target": catalog[row["item"]]}) + "\n")

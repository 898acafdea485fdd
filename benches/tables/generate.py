#!/usr/bin/env python3
"""Makes up interactions of any number as CSV, to measure how fast they are filtered and split.

  generate.py OUT [--interactions 10000000]

OUT/interactions.csv has the columns user_id, item_id, rating, timestamp; OUT/items.csv has item_id, title. A tenth as many
users as interactions and a fiftieth as many items; both are chosen by a power law, so that some have hundreds and many
have one, and a fifth of the users and items have fewer than five. Two rows in a hundred stand there twice.
"""
import argparse, os
import numpy as np

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("out")
p.add_argument("--interactions", type=int, default=10_000_000)
p.add_argument("--seed", type=int, default=0)
args = p.parse_args()

random = np.random.default_rng(args.seed)
count = args.interactions
users, items = max(count // 10, 10), max(count // 50, 10)


def power_law(size, number):
    weights = 1.0 / np.arange(1, number + 1) ** 0.7
    ranks = np.searchsorted(np.cumsum(weights) / weights.sum(), random.random(size))
    return random.permutation(number)[np.minimum(ranks, number - 1)]


os.makedirs(args.out, exist_ok=True)
with open(os.path.join(args.out, "items.csv"), "w") as file:
    file.write("item_id,title\n")
    file.writelines(f'B{item:09d},"Item {item}, volume {item % 7}"\n' for item in range(items))
with open(os.path.join(args.out, "interactions.csv"), "w") as file:
    file.write("user_id,item_id,rating,timestamp\n")
    part = 1_000_000
    for start in range(0, count, part):
        size = min(part, count - start)
        rows = np.stack(
            [
                power_law(size, users),
                power_law(size, items),
                random.integers(1, 6, size),
                random.integers(1_300_000_000, 1_500_000_000, size),
            ],
            axis=1,
        )
        twice = random.random(size) < 0.02
        rows[1:][twice[1:]] = rows[:-1][twice[1:]]
        file.writelines(f"A{u:012d},B{i:09d},{r}.0,{t}\n" for u, i, r, t in rows.tolist())

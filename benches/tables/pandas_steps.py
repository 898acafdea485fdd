#!/usr/bin/env python3
"""The same steps as `latentr3 prepare --dry-run` in pandas: what is left after each, as JSON, with time and peak memory.

  pandas_steps.py DIR [--k 5] [--min-rating R]

DIR as generate.py makes it. Rows of the table: read, rating, title, repeats (same user, item and time), k-core; then the split
8:1:1 by time of all choices that have a history.
"""
import argparse, os, time
import pandas as pd
from report import report

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("dir")
p.add_argument("--k", type=int, default=5)
p.add_argument("--min-rating", type=float)
args = p.parse_args()
clock = time.perf_counter()

table = pd.read_csv(
    os.path.join(args.dir, "interactions.csv"),
    dtype={"user_id": "category", "item_id": "category", "rating": "float32", "timestamp": "int64"},
)
titles = pd.read_csv(os.path.join(args.dir, "items.csv"))
left = {"read": len(table)}
if args.min_rating is not None:
    table = table[table.rating >= args.min_rating]
table = table[table.item_id.isin(titles.item_id[titles.title.notna()])]
left["no title"] = len(table)
table["line"] = table.index
table = table.drop_duplicates(["user_id", "item_id", "timestamp"])
left["repeats"] = len(table)
while True:
    users = table.user_id.map(table.user_id.value_counts())
    items = table.item_id.map(table.item_id.value_counts())
    kept = table[(users.astype(int) >= args.k) & (items.astype(int) >= args.k)]
    if len(kept) == len(table):
        break
    table = kept
left[f"{args.k}-core"] = len(table)
table = table.sort_values(["user_id", "timestamp", "line"])
history = table.groupby("user_id", observed=True).cumcount()
rows = table[history > 0].sort_values(["timestamp", "line"])
report(left, len(rows), clock)

#!/usr/bin/env python3
"""The same steps as pandas_steps.py in Polars, whose engine is a Rust library too: read lazily and collected in its streaming engine.

  polars_steps.py DIR [--k 5] [--min-rating R] [--threads 2]
"""
import argparse, os, time

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("dir")
p.add_argument("--k", type=int, default=5)
p.add_argument("--min-rating", type=float)
p.add_argument("--threads", default="2")
args = p.parse_args()
os.environ["POLARS_MAX_THREADS"] = args.threads
import polars as pl
from report import report

clock = time.perf_counter()


def table(name):
    return pl.scan_csv(os.path.join(args.dir, name))


# Names become numbers as early as possible; the counts of what was read come from the same pass.
interactions = table("interactions.csv").with_row_index("line")
titled = table("items.csv").filter(pl.col("title").is_not_null()).select("item_id")
read = interactions.select(pl.len())
if args.min_rating is not None:
    interactions = interactions.filter(pl.col("rating") >= args.min_rating)
titled_interactions = interactions.join(titled, on="item_id", how="semi").select(
    "line", "timestamp", pl.col("user_id").cast(pl.Categorical), pl.col("item_id").cast(pl.Categorical)
)
read, frame = pl.collect_all([read, titled_interactions], engine="streaming")
frame = frame.with_columns(pl.col("user_id", "item_id").to_physical())
left = {"read": read.item(), "no title": len(frame)}
frame = frame.unique(["user_id", "item_id", "timestamp"], keep="first", maintain_order=True)
left["repeats"] = len(frame)
while True:
    kept = frame.filter((pl.len().over("user_id") >= args.k) & (pl.len().over("item_id") >= args.k))
    if len(kept) == len(frame):
        break
    frame = kept
left[f"{args.k}-core"] = len(frame)
frame = frame.sort("user_id", "timestamp", "line")
rows = frame.filter(pl.int_range(pl.len()).over("user_id") > 0).sort("timestamp", "line")
report(left, len(rows), clock)

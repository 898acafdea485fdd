#!/usr/bin/env python3
"""How the cost of `latentr3 bench` grows with users, history, samples, beams, catalog and model.

  scaling.py --latentr3 target/release/latentr3 [--only beams] [--threads 2] [--json FILE]

Everything is made up: a random catalog of titles of 4 to 12 tokens that share their beginnings as titles do, prompts of a
common head of 45 tokens and random rest, random models. Prints one table per dimension; `slope` is the exponent of the cost
between the first and the last row (1: linear growth, 0: none). Every figure is the best of three runs.
"""
import argparse, json, math, os, random, subprocess, tempfile

VOCABULARY = 4096


def title(source):
    """Tokens with a skew towards the first ones, so that titles share beginnings; 0 ends a title."""
    return [1 + int((VOCABULARY - 1) * source.random() ** 3) for _ in range(source.randint(4, 12))] + [0]


def token_file(folder, prompt=110, items=5000, rows=256):
    path = os.path.join(folder, f"{prompt}-{items}-{rows}.jsonl")
    if not os.path.exists(path):
        source = random.Random(0)
        catalog = list({tuple(title(source)) for _ in range(items)})
        head = [source.randrange(1, VOCABULARY) for _ in range(45)]
        with open(path, "w") as file:
            file.write(json.dumps({"catalog": catalog, "eos": 0}) + "\n")
            for _ in range(rows):
                rest = [source.randrange(1, VOCABULARY) for _ in range(prompt - 45 + source.randint(-15, 15))]
                file.write(json.dumps({"prompt": head + rest, "target": source.choice(catalog)}) + "\n")
    return path


def model(args, folder, hidden=256, layers=4):
    path = os.path.join(folder, f"model-{hidden}-{layers}")
    if not os.path.exists(path):
        tokenizer = os.path.join(folder, "tokenizer.json")
        words = {f"w{i}": i for i in range(VOCABULARY)}
        with open(tokenizer, "w") as file:
            json.dump({"version": "1.0", "model": {"type": "WordLevel", "vocab": words, "unk_token": "w1"}}, file)
        sizes = ["--hidden", hidden, "--layers", layers, "--heads", hidden // 64, "--kv-heads", max(1, hidden // 128), "--ff", 3 * hidden]
        command = [args.latentr3, "init", "--quiet", "--out", path, "--tokenizer", tokenizer, "--end-token", "w0", *map(str, sizes)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def bench(args, what, model, tokens, **options):
    command = [args.latentr3, "bench", what, "--model", model, "--tokens", tokens, "--threads", str(args.threads)]
    for name, value in options.items():
        command += ["--" + name, str(value)]
    runs = [json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(3)]
    best = min(runs, key=lambda run: run["s"] if what == "eval" else run["step_s_min"])
    return best["s"] if what == "eval" else best["step_s_min"], best["peak_mib"]


def dimensions(args, folder):
    """Name, what a value means, the values, and the measurement of one."""
    small, usual = model(args, folder), token_file(folder)
    yield "users", "evaluation of so many users, 16 at once", [16, 32, 64, 128, 256], lambda n: bench(
        args, "eval", small, usual, users=n, batch=16)
    yield "batch", "SFT step of so many prompts", [8, 16, 32, 64, 128], lambda n: bench(
        args, "sft", small, usual, batch=n, micro=32)
    yield "history", "SFT step of 32 prompts of so many tokens", [75, 150, 300, 600, 900], lambda n: bench(
        args, "sft", small, token_file(folder, prompt=n), micro=32)
    yield "samples", "GRPO step of 8 prompts with so many samples each", [2, 4, 8, 16, 32, 64], lambda n: bench(
        args, "grpo", small, usual, group=n, batch=8 * n)
    yield "beams", "evaluation of 8 users with so many beams", [1, 4, 16, 64, 256, 512], lambda n: bench(
        args, "eval", small, usual, users=8, batch=8, beams=n)
    yield "items", "evaluation of 32 users over so many titles", [5000, 50000, 500000], lambda n: bench(
        args, "eval", small, token_file(folder, items=n), users=32, batch=16)
    yield "layers", "SFT step of 32 prompts with so many layers of width 256", [2, 4, 8, 16], lambda n: bench(
        args, "sft", model(args, folder, layers=n), usual, micro=32)
    yield "width", "SFT step of 32 prompts with 4 layers of such a width", [128, 256, 512, 1024], lambda n: bench(
        args, "sft", model(args, folder, hidden=n), usual, micro=32)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--latentr3", default="target/release/latentr3")
    p.add_argument("--only", help="one dimension")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--json", help="write all figures there")
    args = p.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, meaning, values, measure in dimensions(args, folder):
            if args.only not in (None, name):
                continue
            rows = [(value, *measure(value)) for value in values]
            (first, cost, _), (last, last_cost, _) = rows[0], rows[-1]
            slope = math.log(last_cost / cost) / math.log(last / first)
            print(f"\n{meaning}; slope {slope:.2f}\n\n| {name} | seconds | memory, MiB |\n|---|---|---|", flush=True)
            for value, seconds, memory in rows:
                print(f"| {value:,} | {seconds:.3f} | {memory:.0f} |", flush=True)
            results[name] = {"slope": slope, "rows": rows}
    if args.json:
        json.dump(results, open(args.json, "w"), indent=1)


if __name__ == "__main__":
    main()

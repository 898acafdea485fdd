#!/usr/bin/env python3
"""Times `latentr3 bench` and the PyTorch yardstick (peer.py) in turn and writes a table of ratios.

  run.py --latentr3 target/release/latentr3 --tokens FOLDER [--model FOLDER] [--large FOLDER --large-tokens FOLDER]

FOLDER of tokens: train.jsonl and test.jsonl as `tokens.py PREPARED FOLDER` writes them from a prepared folder. Without
`--model` a random one of the yardstick's default size is made. `--large` adds the cases of a larger model, for instance
SmolLM2-135M with a latent attention (`latentr3 init --base`), with tokens of its own tokenizer.

Both programs get the same weights, tokens and threads; they alternate, round by round. A case counts only if the programs
agree: losses of the steps (stage 2: rewards without noise) within 1e-3, ranked lists for all users but one in 16 (exact stop in
both). Times are each run's fastest step (users a second for evaluation), ratios are of the medians over the rounds.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))

# name, command, arguments of both programs, the yardstick's mode that is measured against
TINY = [
    ("SFT, batch 32", "sft", ["--batch", "32"], "naive"),
    ("GRPO, 64 rollouts", "grpo", ["--batch", "64", "--group", "8"], "naive"),
    ("evaluation, 10 beams", "eval", ["--users", "16", "--batch", "16"], "naive"),
]
LARGE = [
    ("GRPO, 16 rollouts", "grpo", ["--batch", "16", "--steps", "2"], "naive"),
    ("evaluation, 10 beams", "eval", ["--users", "4", "--batch", "4"], "naive"),
    ("SFT, batch 8", "sft", ["--batch", "8", "--steps", "2"], "shared"),
]


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


class Programs:
    def __init__(self, args):
        self.latentr3, self.threads = args.latentr3, ["--threads", str(args.threads)]

    def ours(self, what, model, tokens, more):
        return run([self.latentr3, "bench", what, "--model", model, "--tokens", tokens, *self.threads, *more])

    def yardstick(self, what, model, tokens, more):
        peer = os.path.join(HERE, "peer.py")
        return run([sys.executable, peer, what, "--model", model, "--tokens", tokens, *self.threads, *more])


def agreement(programs, what, model, tokens, both, mode):
    """How far the programs' results are apart: the largest relative difference of losses, or users ranked alike."""
    if what == "eval":
        with tempfile.TemporaryDirectory() as folder:
            dumps = [os.path.join(folder, name) for name in ("ours", "yardstick")]
            programs.ours(what, model, tokens, [*both, "--dump", dumps[0]])
            programs.yardstick(what, model, tokens, [*both, "--exact-stop", "--dump", dumps[1]])
            ours, theirs = [json.load(open(dump)) for dump in dumps]
        alike = sum(same_ranking(a, b) for a, b in zip(ours, theirs))
        if not ours or len(ours) != len(theirs) or alike < len(ours) - len(ours) / 16:
            sys.exit(f"{what}: only {alike} of {len(ours)} users are ranked alike")
        return f"{alike} of {len(ours)} lists"
    # Stage 2 without noise: all samples of a prompt earn the same, so that the loss is about zero and the rewards tell.
    still, figure = (["--sigma", "0"], "reward") if what == "grpo" else ([], "loss")
    ours = programs.ours(what, model, tokens, [*both, *still])
    theirs = programs.yardstick(what, model, tokens, [*both, *still, "--mode", mode])
    apart = max(abs(a - b) / abs(b) for a, b in zip(ours[figure], theirs[figure], strict=True))
    # Those losses are sums about zero, so that they are compared by themselves.
    losses = max(abs(a - b) for a, b in zip(ours["loss"], theirs["loss"], strict=True)) if what == "grpo" else 0.0
    if apart > 1e-3 or losses > 1e-3:
        sys.exit(f"{what}: {figure}s {ours[figure]} and {theirs[figure]}, losses {ours['loss']} and {theirs['loss']}")
    return f"{figure} to {apart:.0e}"


def same_ranking(ours, theirs):
    """The same items in the same order, where scores that differ by less than rounding may change places."""
    if ours[0] == theirs[0]:
        return True
    (our_items, our_scores), (their_items, their_scores) = ours, theirs
    if len(our_items) != len(their_items):
        return False
    for item, score in zip(our_items, our_scores):
        if item in their_items:
            if abs(their_scores[their_items.index(item)] - score) > 1e-4:
                return False
        elif abs(score - our_scores[-1]) > 1e-4:
            return False
    return True


def matrix_peak(threads):
    """Floating-point operations a second of PyTorch's matrix product, best of several sizes.

    No bound for others: a program that uses wider vectors than PyTorch's library may be above it.
    """
    code = (
        "import time, torch, sys; torch.set_num_threads(int(sys.argv[1])); best = 0\n"
        "for n in (512, 1024, 2048):\n"
        "    a, b = torch.randn(n, n), torch.randn(n, n)\n"
        "    for _ in range(12):\n"
        "        t = time.perf_counter(); a @ b; best = max(best, 2 * n**3 / (time.perf_counter() - t))\n"
        "print(best)"
    )
    return run([sys.executable, "-c", code, str(threads)])


def operations(what, model, tokens, both, result):
    """Floating-point operations of the step that was fastest, or of all users, when every prompt runs once.

    Two for each weight and token forward, twice as many backward where weights train, as many where only inputs matter.
    Tokens at the head that all prompts share count once. The attention itself and the latent attention are left out; a
    search is taken to end when its target does. An estimate, then, and a low one.
    """
    config = json.load(open(os.path.join(model, "config.json")))
    d, ff, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or d // heads
    body = layers * (d * width * 2 * (heads + config["num_key_value_heads"]) + 3 * d * ff)
    head = d * config["vocab_size"]
    options = dict(zip(both[::2], map(int, both[1::2])))
    group, beams = options.get("--group", 8), options.get("--beams", 10)
    rows = [row for row in map(json.loads, open(tokens)) if "prompt" in row]
    count = {"sft": options.get("--batch"), "grpo": options.get("--batch", 0) // group, "eval": options.get("--users")}[what]
    step = 0 if what == "eval" else result["step_s"].index(result["step_s_min"])
    rows = [rows[(step * count + i) % len(rows)] for i in range(count)]
    shared = len(os.path.commonprefix([row["prompt"] for row in rows]))
    prompt = sum(len(row["prompt"]) - shared for row in rows) + shared
    target = sum(len(row["target"]) for row in rows)
    if what == "sft":
        return 6 * (body * (prompt + target) + head * target)
    if what == "grpo":
        return 2 * body * prompt + 4 * group * (body + head) * target
    return 2 * body * prompt + 2 * (body + head) * (count + beams * (target - count))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--latentr3", default="target/release/latentr3")
    p.add_argument("--tokens", required=True, help="folder with train.jsonl and test.jsonl")
    p.add_argument("--model", help="small model; made at random if not given")
    p.add_argument("--large", help="larger model, for the cases of its own")
    p.add_argument("--large-tokens", help="tokens of the larger model")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--json", help="write all figures there")
    args = p.parse_args()
    if args.large and not args.large_tokens:
        p.error("--large needs --large-tokens")
    programs = Programs(args)
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or os.path.join(folder, "tiny")
        if not args.model:
            run([sys.executable, os.path.join(HERE, "peer.py"), "make", "--out", model])
        cases = [("small", model, args.tokens, *case) for case in TINY]
        if args.large:
            cases += [("large", args.large, args.large_tokens, *case) for case in LARGE]
        report(programs, cases, args)


def report(programs, cases, args):
    peak = matrix_peak(args.threads)
    figures = []
    print(f"PyTorch's best matrix product {peak / 1e9:.0f} GFLOP/s, {args.rounds} rounds, {args.threads} threads\n")
    print("| model | case | against | PyTorch | this | ratio (range) | over shared | memory, MiB | share of that product | agreement |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for size, model, folder, name, what, both, mode in cases:
        tokens = os.path.join(folder, "test.jsonl" if what == "eval" else "train.jsonl")
        agreed = agreement(programs, what, model, tokens, both, mode)
        rounds = {"this": [], mode: [], "shared": []}
        for _ in range(args.rounds):
            rounds["this"].append(programs.ours(what, model, tokens, both))
            for measured in [mode] if what == "eval" or mode == "shared" else [mode, "shared"]:
                more = [] if what == "eval" else ["--mode", measured]
                rounds[measured].append(programs.yardstick(what, model, tokens, [*both, *more]))
        key = "users_per_s" if what == "eval" else "step_s_min"
        rate = lambda results: [r[key] if what == "eval" else 1 / r[key] for r in results]
        mine, base = rate(rounds["this"]), rate(rounds[mode])
        ratio = statistics.median(mine) / statistics.median(base)
        pairs = sorted(a / b for a, b in zip(mine, base))
        memory = {m: max(r["peak_mib"] for r in results) for m, results in rounds.items() if results}
        against = rounds["shared"] or rounds[mode]
        over_shared = f"{statistics.median(mine) / statistics.median(rate(rounds['shared'])):.1f}" if rounds["shared"] else "-"
        used = [operations(what, model, tokens, both, r) / (r["s"] if what == "eval" else r["step_s_min"]) for r in rounds["this"]]
        used = statistics.median(used)
        text = lambda rates: (
            f"{statistics.median(rates):.3g} users/s" if what == "eval" else f"{1 / statistics.median(rates):.3g} s"
        )
        print(
            f"| {size} | {name} | {mode} | {text(base)} | {text(mine)} | {ratio:.1f} ({pairs[0]:.1f}-{pairs[-1]:.1f}) | {over_shared} | "
            f"{memory['this']:.0f} of {max(r['peak_mib'] for r in against):.0f} | {used / peak:.0%} | {agreed} |",
            flush=True,
        )
        figures.append(
            {"model": size, "case": name, "against": mode, "ratio": ratio, "rounds": rounds, "agreement": agreed}
        )
    if args.json:
        json.dump({"matrix_peak": peak, "cases": figures}, open(args.json, "w"), indent=1)


if __name__ == "__main__":
    main()

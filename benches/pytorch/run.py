#!/usr/bin/env python3
"""Times `latentr3 bench` and the PyTorch yardstick (peer.py) in turn and writes tables of ratios.

  run.py --latentr3 target/release/latentr3 --tokens FOLDER [--long-tokens FOLDER] [--model FOLDER] [--large FOLDER --large-tokens FOLDER]

FOLDER of tokens: train.jsonl and test.jsonl as `tokens.py PREPARED FOLDER` writes them from a prepared folder. Without
`--model` a random one of the yardstick's default size is made. `--large` adds the cases of a larger model, for instance
SmolLM2-135M with a latent attention (`latentr3 init --base`), with tokens of its own tokenizer. `--long-tokens` adds a second table: both
objectives of this program beside each other, on tokens of long titles.

Both programs get the same weights, tokens and threads; they alternate, round by round. A case counts only if the programs
agree: losses of the steps (stage 2: rewards without noise) within 1e-3, ranked lists for all users but one in 16 (exact stop in
both). Times are each run's fastest step (users a second for evaluation), ratios are of the medians over the rounds. In stage 1 `shared` is measured with
micro-batches of 8 and of 32 rows, of which the faster one counts; this program runs with those of `latentr3 sft`, 32 rows.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from peer import Tree

# name, command, arguments of both programs, whether the published way is measured too
SMALL = [
    ("SFT, batch 32", "sft", ["--batch", "32"], True),
    ("GRPO, 64 rollouts", "grpo", ["--batch", "64", "--group", "8"], True),
    ("evaluation, 10 beams", "eval", ["--users", "16", "--batch", "16"], True),
]
# Of the catalog's objective only; the published way takes minutes a step.
LISTS = ("stage 2 on lists, 64 prompts x 16 items", "grpo", ["--samples", "items", "--group", "16", "--batch", "1024", "--micro", "32"], False)
LARGE = [
    ("GRPO, 16 rollouts", "grpo", ["--batch", "16", "--steps", "2"], True),
    ("evaluation, 10 beams", "eval", ["--users", "4", "--batch", "4"], True),
    ("SFT, batch 8", "sft", ["--batch", "8", "--steps", "2"], False),
]
OBJECTIVES = ["catalog", "vocabulary"]


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


def agreement(programs, what, model, tokens, both):
    """How far the programs' results are apart: the largest relative difference of losses, or users ranked alike."""
    if what == "eval":
        with tempfile.TemporaryDirectory() as folder:
            dumps = [os.path.join(folder, name) for name in ("ours", "yardstick")]
            programs.ours(what, model, tokens, [*both, "--dump", dumps[0]])
            # The published search for the published objective; only `shared` cuts titles as the catalog's objective is defined.
            mode = "shared" if "catalog" in both else "naive"
            programs.yardstick(what, model, tokens, [*both, "--mode", mode, "--exact-stop", "--dump", dumps[1]])
            ours, theirs = [json.load(open(dump)) for dump in dumps]
        alike = sum(same_ranking(a, b) for a, b in zip(ours, theirs))
        if not ours or len(ours) != len(theirs) or alike < len(ours) - len(ours) / 16:
            sys.exit(f"{what}: only {alike} of {len(ours)} users are ranked alike")
        return f"{alike} of {len(ours)} lists"
    # Stage 2 without noise: all samples of a prompt earn the same, so that the loss is about zero and the rewards tell.
    still, figure = (["--sigma", "0"], "reward") if what == "grpo" and "items" not in both else ([], "loss")
    ours = programs.ours(what, model, tokens, [*both, *still])
    apart = losses = 0.0
    for mode in ("shared",) if "items" in both else ("shared", "naive"):
        theirs = programs.yardstick(what, model, tokens, [*both, *still, "--mode", mode])
        # The losses of stage 2 are sums about zero, so that they are compared by themselves.
        if "items" not in both:
            apart = max([apart, *(abs(a - b) / abs(b) for a, b in zip(ours[figure], theirs[figure], strict=True))])
        if what == "grpo":
            losses = max([losses, *(abs(a - b) for a, b in zip(ours["loss"], theirs["loss"], strict=True))])
    if apart > 1e-3 or losses > 1e-3:
        sys.exit(f"{what}: {figure}s {ours[figure]} and {theirs[figure]}, losses {ours['loss']} and {theirs['loss']}")
    return f"loss to {losses:.0e} of {max(map(abs, ours['loss'])):.0e}" if "items" in both else f"{figure} to {apart:.0e}"


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


def operations(what, model, tokens, catalog, both, result):
    """Floating-point operations of the step that was fastest, or of all users, when every prompt runs once.

    Two for each weight and token forward, twice as many backward where weights train, as many where only inputs matter.
    Tokens at the head that all prompts share count once. With the catalog's objective a target has the tokens before its last choice and the
    logits of its choices. The attention itself and the latent attention are left out; a search is taken to end when its target does. An
    estimate, then, and a low one.
    """
    config = json.load(open(os.path.join(model, "config.json")))
    d, ff, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or d // heads
    body = layers * (d * width * 2 * (heads + config["num_key_value_heads"]) + 3 * d * ff)
    options = dict(zip(both[::2], both[1::2]))
    number = lambda name, default: int(options.get(name, default))
    group, beams = number("--group", 8), number("--beams", 10)
    rows = [row for row in map(json.loads, open(tokens)) if "prompt" in row]
    batch = number("--batch", 0)
    count = {"sft": batch, "grpo": batch // group, "eval": number("--users", 16)}[what]
    step = 0 if what == "eval" else result["step_s"].index(result["step_s_min"])
    rows = [rows[(step * count + i) % len(rows)] for i in range(count)]
    shared = len(os.path.commonprefix([row["prompt"] for row in rows]))
    prompt = sum(len(row["prompt"]) - shared for row in rows) + shared
    targets = [row["target"] for row in rows]
    logits, all_beams = sum(map(len, targets)) * config["vocab_size"], group if options.get("--samples") == "items" else beams
    if options["--objective"] == "catalog":
        tree = Tree(catalog)
        targets = [tree.cut(target) for target in targets]
        logits = sum(len(allowed) for target in targets for allowed in tree.steps(target) if len(allowed) > 1)
    target = sum(map(len, targets))
    if what == "sft":
        return 6 * (body * (prompt + target) + d * logits)
    search = 2 * (body * (count + all_beams * (target - count)) + all_beams * d * logits)
    if options.get("--samples") == "items":
        # A list's titles are taken to be as long as its target.
        return 6 * (body * (prompt + group * target) + group * d * logits) + search
    if what == "grpo":
        return 2 * body * prompt + 4 * group * (body * target + d * logits)
    return 2 * body * prompt + search


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--latentr3", default="target/release/latentr3")
    p.add_argument("--tokens", required=True, help="folder with train.jsonl and test.jsonl")
    p.add_argument("--long-tokens", help="the same of a catalog with long titles, for the table of both objectives")
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
        cases = [("small", model, args.tokens, objective, *case) for objective in OBJECTIVES for case in [*SMALL, *([LISTS] if objective == "catalog" else [])]]
        if args.large:
            cases += [("large", args.large, args.large_tokens, objective, *case) for objective in OBJECTIVES for case in LARGE]
        figures = {"matrix_peak": matrix_peak(args.threads), "cases": []}
        print(f"PyTorch's best matrix product {figures['matrix_peak'] / 1e9:.0f} GFLOP/s, {args.rounds} rounds, {args.threads} threads\n")
        beside_pytorch(programs, cases, args, figures)
        if args.long_tokens:
            beside_each_other(programs, model, args, figures)
    if args.json:
        json.dump(figures, open(args.json, "w"), indent=1)


def files(folder, what):
    """The rows of a command and the file whose first line has their catalog."""
    train, test = [os.path.join(folder, name) for name in ("train.jsonl", "test.jsonl")]
    return (test if what == "eval" else train), test


def rate(what, results):
    """What is better the larger it is: users a second, or steps."""
    return [r["users_per_s"] if what == "eval" else 1 / r["step_s_min"] for r in results]


def text(what, rates):
    median = statistics.median(rates)
    return f"{median:.3g} users/s" if what == "eval" else f"{1 / median:.3g} s"


def ratio(a, b):
    """The ratio of the medians, and its range over the rounds' pairs."""
    pairs = sorted(x / y for x, y in zip(a, b))
    return f"{statistics.median(a) / statistics.median(b):.2g} ({pairs[0]:.2g}-{pairs[-1]:.2g})"


def beside_pytorch(programs, cases, args, figures):
    print("| objective | model | case | shared | naive | this | over shared (range) | over naive (range) | memory, MiB | % of peak | agreement |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for size, model, folder, objective, name, what, both, is_naive in cases:
        tokens, with_catalog = files(folder, what)
        both = [*both, "--objective", objective]
        if what != "eval" and objective == "catalog":
            both += ["--catalog", with_catalog]
        agreed = agreement(programs, what, model, tokens, both)
        modes = {"shared, micro 8": ["--mode", "shared"], "shared, micro 32": ["--mode", "shared", "--micro", "32"]}
        if what != "sft" or size == "large":
            del modes["shared, micro 32"]  # one pass whatever it is: stage 2 runs all of its rollouts at once, a search its users
        if is_naive:
            modes["naive"] = ["--mode", "naive"]
        rounds = {"this": [], **{mode: [] for mode in modes}}
        ours = [*both, "--micro", "32"] if what == "sft" else both
        for _ in range(args.rounds):
            rounds["this"].append(programs.ours(what, model, tokens, ours))
            for mode, more in modes.items():
                rounds[mode].append(programs.yardstick(what, model, tokens, [*both, *more]))
        rates = {mode: rate(what, results) for mode, results in rounds.items()}
        best = max((mode for mode in modes if mode != "naive"), key=lambda mode: statistics.median(rates[mode]))
        memory = {mode: max(r["peak_mib"] for r in results) for mode, results in rounds.items()}
        catalog = json.loads(open(with_catalog).readline())["catalog"]
        used = [operations(what, model, tokens, catalog, both, r) / (r["s"] if what == "eval" else r["step_s_min"]) for r in rounds["this"]]
        note = " (micro 32)" if "32" in best else ""
        print(
            f"| {objective} | {size} | {name} | {text(what, rates[best])}{note} | {text(what, rates['naive']) if is_naive else '-'} | "
            f"{text(what, rates['this'])} | {ratio(rates['this'], rates[best])} | "
            f"{ratio(rates['this'], rates['naive']) if is_naive else '-'} | {memory['this']:.0f} of {memory[best]:.0f} | "
            f"{statistics.median(used) / figures['matrix_peak']:.0%} | {agreed} |",
            flush=True,
        )
        figures["cases"].append({"objective": objective, "model": size, "case": name, "best": best, "rounds": rounds, "agreement": agreed})


def beside_each_other(programs, model, args, figures):
    print("\n| case, long titles | vocabulary | catalog | ratio (range) | memory, MiB |\n|---|---|---|---|---|")
    for name, what, both, _ in SMALL:
        if what == "eval":
            both = ["--users", "64", "--batch", "16"]
        tokens, with_catalog = files(args.long_tokens, what)
        rounds = {objective: [] for objective in OBJECTIVES}
        for _ in range(args.rounds):
            for objective in OBJECTIVES:
                more = ["--catalog", with_catalog] if what != "eval" and objective == "catalog" else []
                more += ["--micro", "32"] if what == "sft" else []
                rounds[objective].append(programs.ours(what, model, tokens, [*both, "--objective", objective, *more]))
        rates = {objective: rate(what, results) for objective, results in rounds.items()}
        memory = {objective: max(r["peak_mib"] for r in results) for objective, results in rounds.items()}
        print(
            f"| {name} | {text(what, rates['vocabulary'])} | {text(what, rates['catalog'])} | {ratio(rates['catalog'], rates['vocabulary'])} | "
            f"{memory['catalog']:.0f} of {memory['vocabulary']:.0f} |",
            flush=True,
        )
        figures["cases"].append({"case": name, "tokens": "long", "rounds": rounds})


if __name__ == "__main__":
    main()

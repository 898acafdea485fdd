"""Draws the pictures of the documentation as SVG files beside this script.

    python docs/pictures/draw.py

Every measured number comes from the kept results under experiments/results, and those of speed from the first table of
BENCHMARKS.md. If one of those files is missing, the script names it, writes nothing and exits with 1. The same results
give the same bytes.
"""

import json
import math
import sys
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULTS = ROOT / "experiments" / "results"

# Each colour on a light and on a dark page; the strong ones are from Okabe and Ito's palette.
COLOURS = {
    "ink": ("#1f2328", "#e6edf3"), "muted": ("#57606a", "#a3adb8"), "line": ("#6e7781", "#8b949e"),
    "grid": ("#d0d7de", "#3d444d"), "card": ("#f6f8fa", "#161b22"), "green": ("#009e73", "#00b987"),
    "blue": ("#0072b2", "#56b4e9"), "blue-soft": ("#d6e8f4", "#123a55"),
    "orange": ("#d55e00", "#e69f00"), "orange-soft": ("#fbe2d0", "#4d3300"),
}


class Svg:
    """Collects shapes whose colours are names, so that a style sheet can switch them for a dark page."""

    def __init__(self, width, height, title, description):
        self.width, self.height, self.title, self.description = width, height, title, description
        self.shapes, self.used = [], set()

    def add(self, tag, content="", fill="none", stroke="none", **attributes):
        """An element; `fill` and `stroke` name colours, underscores in names of attributes stand for hyphens."""
        classes = [f"{kind}-{name}" for kind, name in (("fill", fill), ("stroke", stroke)) if name in COLOURS]
        self.used.update(classes)
        attributes |= {"class": " ".join(classes) or None, "fill": None if fill in COLOURS else fill}
        given = {key.replace("_", "-"): show(value) for key, value in attributes.items() if value is not None}
        written = "".join(f' {key}="{value}"' for key, value in given.items())
        self.shapes.append(f"<{tag}{written}>{content}</{tag}>")

    def text(self, x, y, words, colour="ink", size=None, anchor=None, weight=None):
        """A line of text, or several of a list."""
        for number, line in enumerate([words] if isinstance(words, str) else words):
            self.add("text", escape(line), fill=colour, x=x, y=y + 18 * number, font_size=size, text_anchor=anchor,
                     font_weight=weight)

    def rect(self, x, y, width, height, fill="none", stroke="none", rx=6, stroke_width=1.5, **attributes):
        self.add("rect", fill=fill, stroke=stroke, x=x, y=y, width=width, height=height, rx=rx,
                 stroke_width=None if stroke == "none" else stroke_width, **attributes)

    def circle(self, x, y, r, fill="none", stroke="none"):
        self.add("circle", fill=fill, stroke=stroke, cx=x, cy=y, r=r, stroke_width=2.5)

    def path(self, points, stroke="line", width=1.5, dash=None):
        self.add("polyline", stroke=stroke, points=points, stroke_width=width, stroke_dasharray=dash)

    def arrow(self, points, stroke="line", width=1.8, dash=None):
        """A path with a head at its end."""
        (x0, y0), (x1, y1) = points[-2:]
        length = math.hypot(x1 - x0, y1 - y0)
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        self.path([*points[:-1], (x1 - 7 * dx, y1 - 7 * dy)], stroke, width, dash)
        x, y = x1 - 9 * dx, y1 - 9 * dy
        self.add("polygon", fill=stroke, points=[(x1, y1), (x + 5 * dy, y - 5 * dx), (x - 5 * dy, y + 5 * dx)])

    def token(self, x, y, width, words, fill="card", stroke="line", rx=5, **attributes):
        """A small box with its words in the middle."""
        self.rect(x, y, width, 30, fill, stroke, rx, **attributes)
        self.text(x + width / 2, y + 19.5, words, anchor="middle")

    def source(self):
        light, dark = ("".join(f".{name}{{{name.split('-')[0]}:{COLOURS[name.split('-', 1)[1]][page]}}}"
                               for name in sorted(self.used)) for page in range(2))
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" role="img" aria-labelledby="title desc" font-family="system-ui, sans-serif" '
            'font-size="13">',
            f'<title id="title">{escape(self.title)}</title>\n<desc id="desc">{escape(self.description)}</desc>',
            f"<style>{light}@media (prefers-color-scheme: dark){{{dark}}}</style>",
            f'<text class="fill-ink" x="16" y="28" font-size="18" font-weight="bold">{escape(self.title)}</text>',
            *self.shapes, "</svg>\n"])


def show(value):
    """An attribute's value: a word, a list of points, or a number with at most two decimals."""
    if isinstance(value, list):
        return " ".join(f"{show(x)},{show(y)}" for x, y in value)
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def signed(value, decimals=4):
    """A number with its sign, without one if it rounds to zero."""
    value = round(value, decimals)
    return f"{value:+.{decimals}f}".replace("-", "\N{MINUS SIGN}") if value else f"{0:.{decimals}f}"


def read(path):
    if not path.is_file():
        sys.exit(f"missing: {path}")
    return path.read_text(encoding="utf-8")


def load(name):
    """A kept result by its path under experiments/results."""
    return json.loads(read(RESULTS / name))


def ticks(low, high, about=6):
    """Round numbers from `low` to `high`."""
    power = 10 ** math.floor(math.log10((high - low) / about))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * about >= (high - low) * 0.999)
    return [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def scale(low, high, start, end):
    """The function from values to places."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def card(svg, x, y, width, height, number, title):
    """A step of the method: a box with its number on the corner."""
    svg.rect(x, y, width, height, "card", "grid", rx=10)
    svg.circle(x + 4, y + 4, 11, "blue")
    svg.text(x + 4, y + 8.5, str(number), "card", size=12, anchor="middle", weight="bold")
    svg.text(x + 20, y + 28, title, size=14, weight="bold")


def method():
    svg = Svg(960, 420, "One request: first a thought, then titles of real items",
              "The language model runs a user's history once, as a prompt. Latent attention over all hidden states "
              "gives one thought, an embedding that enters the sequence where a token would. A beam search over the "
              "catalog's prefix tree then finds real items, ranked.")
    card(svg, 16, 52, 174, 182, 1, ["A user's history", "as a prompt"])
    svg.text(36, 130, ["Listened to:", "Slow Meridian -", "Three Bridges", "Next:"])
    card(svg, 222, 52, 180, 182, 2, "Language model")
    svg.text(242, 108, ["The prompt", "runs once; its", "states are kept."], "muted")
    svg.text(384, 218, "hidden states", "blue", anchor="end")
    card(svg, 456, 52, 170, 182, 3, "Latent attention")
    svg.text(476, 108, ["The last position", "attends to all", "hidden states. This", "gives one thought."], "muted")
    svg.arrow([(190, 143), (222, 143)])
    for y in range(82, 222, 20):
        svg.path([(411, y + 8), (448, 143)], "blue", 1.2)
        svg.rect(394, y, 17, 16, "blue-soft", "blue", rx=3)
    svg.arrow([(440, 143), (456, 143)], "blue")
    method_sequence(svg)
    method_tree(svg)
    card(svg, 662, 52, 282, 140, 5, "Real items, ranked")
    for place, title in enumerate(["Slow Meridian - Second Wind", "Paper Comets", "Slow Meridian - First Light"]):
        svg.text(682, 112 + place * 26, str(place + 1), "blue", weight="bold")
        svg.text(702, 112 + place * 26, title)
    return svg


def method_sequence(svg):
    """The prompt's tokens, the thought in the place of a token, and the title that is being written."""
    words = ["Listened", "to:", "Slow", "Meridian", "-", "Three", "Bridges", "Next:"]
    x = 494 - sum(8 * len(word) + 16 for word in words) + 4
    svg.text((x + 494) / 2, 362, "prompt tokens", "muted", anchor="middle")
    for word in words:
        svg.token(x, 310, 8 * len(word) + 12, word)
        x += 8 * len(word) + 16
    svg.arrow([(541, 234), (541, 309)], "orange", 2.2)
    svg.text(529, 276, "enters where a token would", "muted", anchor="end")
    svg.token(502, 310, 78, "thought", "orange-soft", "orange", rx=15, stroke_width=2.5)
    svg.text(541, 362, "embedding", "muted", anchor="middle")
    svg.token(588, 310, 44, "Slow", "none", stroke_dasharray="4 3")
    svg.text(610, 362, "title", "muted", anchor="middle")


def method_tree(svg):
    """The prefix tree of three titles with its best path."""
    card(svg, 662, 224, 282, 182, 4, ["Beam search over the", "catalog's prefix tree"])
    svg.arrow([(632, 325), (678, 325)], "blue", 2.2)
    svg.circle(684, 325, 6, "blue")
    other, best = ("card", "line", 1.5), ("blue-soft", "blue", 3.5)
    for x, y, width, words, (fill, stroke, line) in (
            (700, 382, 120, "Paper Comets", other), (836, 306, 98, "First Light", other),
            (700, 325, 120, "Slow Meridian -", best), (836, 344, 98, "Second Wind", best)):
        svg.path([(x - 16, 325), (x - 8, 325), (x - 8, y), (x, y)], stroke, line)
        svg.token(x, y - 15, width, words, fill, stroke)
    svg.arrow([(803, 224), (803, 192)])


def block(svg, x, width, title, trains):
    """A part of the model, hatched where it is frozen."""
    svg.rect(x, 170, width, 84, "blue-soft" if trains else "card", "blue" if trains else "line", stroke_width=2)
    if not trains:
        svg.rect(x, 170, width, 84, "url(#hatch)")
    svg.text(x + width / 2, 218 - 9 * len(title), title, size=14, anchor="middle", weight="bold")
    svg.text(x + width / 2, 218 + 9 * len(title), "trains" if trains else "frozen", anchor="middle")


def stage(svg, x, title, note, given, trains, thought, goal):
    """A panel: what goes in, which parts train, and for what."""
    svg.rect(x, 48, 296, 350, "none", "grid", rx=10)
    svg.text(x + 16, 76, title, size=16, weight="bold")
    svg.text(x + 16, 96, note, "muted")
    svg.token(x + 16, 112, 264, given)
    svg.arrow([(x + 76, 142), (x + 76, 170)])
    block(svg, x + 16, 126, ["Backbone"], trains)
    svg.arrow([(x + 64, 254), (x + 64, 330)])
    if trains:
        svg.arrow([(x + 36, 330), (x + 36, 255)], "blue", 2, "5 4")
    svg.rect(x + 16, 330, 264, 52, "card", "line")
    svg.text(x + 148, 352, goal, anchor="middle")
    if not thought:
        svg.text(x + 228, 216, "no thought", "muted", anchor="middle")
        return
    block(svg, x + 178, 94, ["Latent", "attention"], True)
    svg.arrow([(x + 142, 212), (x + 178, 212)])
    svg.arrow([(x + 225, 254), (x + 225, 277)], "orange")
    svg.token(x + 150, 278, 122, thought, "orange-soft", "orange", rx=15, stroke_width=2)
    svg.arrow([(x + 150, 293), (x + 112, 293), (x + 112, 255)], "orange")
    svg.arrow([(x + 280, 356), (x + 287, 356), (x + 287, 212), (x + 273, 212)], "blue", 2, "5 4")


def stages():
    svg = Svg(960, 452, "What trains in which stage",
              "Pretraining, only for a model from scratch: the backbone trains, without a thought. Stage 1: backbone "
              "and latent attention train on the target title's cross-entropy. Stage 2 as published, a modified GRPO: "
              "only latent attention trains; the thought gets noise, the reward is minus the target's perplexity.")
    svg.add("pattern", '<path d="M0 0V9" stroke-width="3"/>', stroke="grid", id="hatch", width=9, height=9,
            patternUnits="userSpaceOnUse", patternTransform="rotate(45)")
    stage(svg, 16, "Pretraining", "only for a model from scratch", "titles of users' histories", True, None,
          ["loss: cross-entropy of", "the titles in the histories"])
    stage(svg, 332, "Stage 1", "supervised fine-tuning", "prompt of a history", True, "thought",
          ["loss: cross-entropy of", "the target title"])
    stage(svg, 648, "Stage 2, as published", "modified GRPO", "prompt of a history", False, "thought + noise",
          ["reward of each sample: minus", "perplexity of the target title"])
    svg.rect(16, 416, 26, 20, "blue-soft", "blue", rx=4, stroke_width=2)
    svg.rect(122, 416, 26, 20, "card", "line", rx=4, stroke_width=2)
    svg.rect(122, 416, 26, 20, "url(#hatch)", rx=4)
    svg.rect(232, 416, 34, 20, "orange-soft", "orange", rx=10, stroke_width=2)
    svg.arrow([(488, 426), (530, 426)], "blue", 2, "5 4")
    for x, words in (50, "trains"), (156, "frozen"), (274, "thought, in a token's place"), (538, "updates weights"):
        svg.text(x, 431, words)
    return svg


def latency():
    kept = load("latency/latency-small.json")
    rows = [row for row in kept["result"]["latency"] if row["batch"] == 1]
    alone = next(row["mean_ms_per_user"] for row in rows if row["length"] == 0)
    bars = []
    for row in rows:
        time, length, tokens = row["mean_ms_per_user"], row["length"], row["reasoning"] == "tokens"
        name = f"chain of {length} tokens" if tokens else f"{length or 'no'} thought{'s' if length > 1 else ''}"
        end = f"{time:.1f} ms" + (f", {time / alone:.2f} times" if length else "")
        bars.append((name, time, "orange" if tokens else "blue", end))
    svg = Svg(960, 116 + 40 * len(bars), "A thought costs little; a chain of thought does not",
              "Mean time until one user's request is answered, small model. "
              + "; ".join(f"{name}: {end}" for name, _, _, end in bars) + ".")
    svg.text(16, 52, "Mean milliseconds until a request is answered: small model, one user at a time", "muted")
    place = scale(0, max(time for _, time, _, _ in bars), 200, 752)
    for y, (name, time, colour, end) in enumerate(bars):
        svg.text(188, 90 + 40 * y, name, size=14, anchor="end")
        svg.rect(200, 72 + 40 * y, place(time) - 200, 26, colour, rx=2)
        svg.text(place(time) + 10, 90 + 40 * y, end, size=14)
    svg.path([(200, 66), (200, 64 + 40 * len(bars))])
    requests = ", ".join(f"{count:,}" for count in sorted({row["requests"] for row in rows}))
    svg.text(16, svg.height - 16, f"{requests} requests each, on the device {kept['device']}, {kept['machine']}. "
             "“Times” compares with no thought.", "muted")
    return svg


# The groups of the forest plot, and their rows: name, file, baseline, other.
FOREST = {
    "With a thought against without, MovieLens 100k": [
        ("First seeds", "main/compare-ml.json", "SFT", "SFT+thought"),
        ("Other seeds", "seeds/compare.json", "SFT", "SFT+thought"),
        ("First seeds, narrower search", "ablations/compare-thoughts.json", "none", "attention-1"),
        ("The same with {thoughts} thoughts", "ablations/compare-thoughts.json", "none", "attention-2"),
        ("The same with {thoughts} thoughts", "ablations/compare-thoughts.json", "none", "attention-4")],
    "A thought against a learned constant in its place, MovieLens 100k": [
        ("First seeds, narrower search", "ablations/compare-reasoning.json", "constants-1", "attention-1"),
        ("Other seeds", "seeds/compare.json", "SFT+constant", "SFT+thought")],
    "With a thought against without, Office Products": [
        ("Catalog objective", "counting/compare-thought-office.json", "catalog", "catalog-thought"),
        ("Vocabulary objective", "counting/compare-vocabulary-office.json", "vocabulary", "vocabulary-thought"),
        ("The same, stopped early", "main/compare-office.json", "SFT", "SFT+thought"),
        ("Both guided by SASRec", "main/compare-d3-office.json", "SFT-D3", "SFT+thought-D3")],
    "With a thought against without, Amazon Toys": [
        ("Catalog objective", "toys/compare-thought.json", "catalog", "catalog-thought")],
    "With a thought against without, CDs and Vinyl": [
        ("SmolLM2-135M", "smollm2/compare.json", "SFT", "SFT+thought")],
    "Search guided by item transitions against item transitions alone, Office Products": [
        ("Guided, product", "counting/compare-office.json", "transition", "guided-product"),
        ("Guided, mixture", "counting/compare-office.json", "transition", "guided-mixture")],
    "Search guided by item transitions against item transitions alone, Amazon Toys": [
        ("Guided, product", "toys/compare-guided.json", "transition", "guided-product"),
        ("The same, without the history", "toys/compare-new.json", "transition", "guided-product")],
    "Stage 2 on lists against stage 1 continued for as many steps, Office Products": [
        ("Hits", "stage2/compare-steps-office.json", "continued", "hit"),
        ("ReRe's rule", "stage2/compare-steps-office.json", "continued", "rere"),
        ("Item transitions, expectation", "stage2/compare-steps-office.json", "continued", "guide"),
        ("Item transitions, distilled", "stage2/compare-steps-office.json", "continued", "distil")],
}


def differences(rows):
    """The rows of a group of the forest plot whose file compares the two by NDCG@10, in this or the other order."""
    for name, file, baseline, other in rows:
        result = load(file)["result"]
        for found in result["comparisons"]:
            pair = (found["baseline"], found["other"])
            if found["metric"] == "NDCG@10" and pair in ((baseline, other), (other, baseline)):
                sign = 1 if pair == (baseline, other) else -1
                both = [found["these_runs"], found.get("runs_like_these")]
                fixed, retrained = (sorted(sign * end for end in test["interval"]) if test else [] for test in both)
                runs = next(model["runs"] for model in result["models"] if model["name"] == other)
                run = load(runs[0].replace("{results}", file.split("/")[0]))["result"]
                value = sign * found["difference"]
                said = f"{signed(value)} [{signed(fixed[0])}, {signed(fixed[1])}]"
                columns = [len(runs), run["beams"], result["users"]]
                yield name.format(thoughts=run["thoughts"]), columns, value, fixed, retrained, said


def whiskers(svg, low, high, y):
    svg.path([(low, y - 4), (low, y + 4), (low, y), (high, y), (high, y - 4), (high, y + 4)], "orange")


def forest():
    groups = {title: found for title, rows in FOREST.items() if (found := list(differences(rows)))}
    bottom = 112 + sum(34 + 29 * len(rows) for rows in groups.values())
    told = (f"{title}: {'; '.join(f'{row[0]} {row[-1]}' for row in rows)}." for title, rows in groups.items())
    svg = Svg(960, bottom + 86, "What the thought, guided search and stage 2 change",
              " ".join(["Differences in NDCG@10 with 95% confidence intervals for fixed models.", *told]))
    svg.path([(18, 54), (58, 54)], "blue", 4)
    svg.circle(38, 54, 5, "blue")
    svg.text(68, 58.5, "fixed models: users vary")
    whiskers(svg, 272, 312, 54)
    svg.text(322, 58.5, "retrained models: users and seeds vary")
    svg.text(944, 58.5, "right of zero: the first named is better", "muted", anchor="end")
    widest = max(abs(end) for rows in groups.values() for row in rows for end in row[3] + row[4]) * 1.04
    place = scale(-widest, widest, 414, 742)
    for value in ticks(-widest, widest, 5):
        svg.path([(place(value), 100), (place(value), bottom)], "grid" if value else "ink", 1 if value else 2)
        svg.text(place(value), bottom + 18, signed(value, 3) if value else "0", "muted", size=12, anchor="middle")
    svg.text(578, bottom + 40, "difference in NDCG@10", anchor="middle")
    for x, words in ((284, "seeds"), (332, "beams"), (390, "users"), (944, "difference [95% CI, fixed models]")):
        svg.text(x, 94, words, "muted", size=12, anchor="end")
    y = 96
    for title, rows in groups.items():
        y += 34
        svg.rect(16, y - 18, 928, 24, "card", rx=4)
        svg.text(20, y - 1, title, weight="bold")
        for row in rows:
            y += 29
            forest_row(svg, y, place, *row)
    svg.text(16, bottom + 70, "No thin line: too few runs on one side to judge retrained models.", "muted")
    return svg


def forest_row(svg, y, place, name, columns, value, fixed, retrained, said):
    svg.text(28, y, name)
    for x, count in zip((284, 332, 390), columns):
        svg.text(x, y, f"{count:,}", "muted", anchor="end")
    if retrained:
        whiskers(svg, *map(place, retrained), y + 3)
    svg.path([(place(end), y - 6) for end in fixed], "blue", 4)
    svg.circle(place(value), y - 6, 5, "blue")
    svg.text(944, y, said, anchor="end")


def regularization(command):
    """What a command of stage 1 says about regularization, in at most two lines."""
    words = {"--dropout": "dropout {}", "--average": "weight averaging", "--drop-history": "perturbed histories",
             "--label-smoothing": "label smoothing", "--weight-decay": "weight decay"}
    given = dict(zip(command, command[1:]))
    on = [text.format(given[option]) for option, text in words.items() if float(given.get(option, 0)) > 0]
    return [", ".join(on[:2]) + ",", ", ".join(on[2:])] if len(on) > 2 else [", ".join(on) or "no regularization"]


def training():
    kept = [load(f"regularization/sft-{trial}.json") for trial in ("plain", "dropout1", "dropout3", "all")]
    labels = [regularization(trial["command"]) for trial in kept]
    results = [trial["result"] for trial in kept]
    curves = [sorted((int(step), loss) for step, loss in result["valid_loss"].items()) for result in results]
    told = (f"{' '.join(label)}: {min(loss for _, loss in curve):.2f} at its lowest, {curve[-1][1]:.2f} at step "
            f"{curve[-1][0]:,}" for label, curve in zip(labels, curves))
    svg = Svg(960, 480, "Regularization slows over-fitting in stage 1",
              "Validation loss in nats per item against the step of stage 1, small model on Office Products. "
              + "; ".join(told) + ". A ring marks the step with the best NDCG@10.")
    svg.text(16, 52, "Validation loss, nats per item", "muted")
    svg.circle(570, 47.5, 6, "card", "ink")
    rows = max(result["best_validation"]["rows"] for result in results)
    svg.text(584, 52, f"best NDCG@10 on {rows:,} validation rows", "muted")
    last = max(step for curve in curves for step, _ in curve)
    losses = [loss for curve in curves for _, loss in curve]
    levels = ticks(min(losses) - 0.1, max(losses) + 0.1)
    across, up = scale(0, last, 60, 820), scale(min(levels[0], *losses), max(losses) + 0.1, 420, 76)
    for level in levels:
        svg.path([(60, up(level)), (820, up(level))], "grid", 1)
        svg.text(52, up(level) + 4, f"{level:.2f}", "muted", size=12, anchor="end")
    for step in ticks(0, last):
        svg.text(across(step), 440, f"{step:,.0f}", "muted", size=12, anchor="middle")
    svg.text(440, 464, "step of stage 1", anchor="middle")
    styles = [("ink", None), ("blue", "9 4"), ("orange", "2 4"), ("green", "12 4 2 4")]
    for label, result, curve, (colour, dash) in zip(labels, results, curves, styles):
        svg.path([(across(step), up(loss)) for step, loss in curve], colour, 2.5, dash)
        best = result["best_step"]
        svg.circle(across(best), up(dict(curve)[best]), 6, "card", colour)
        step, loss = curve[-1]
        svg.text(across(step) + 12, up(loss) + 22.5 - 18 * len(label), label, size=14)
    return svg


def speedups():
    """The rows of the first table of BENCHMARKS.md: what was timed, and the speed-ups over both."""
    lines = iter(read(ROOT / "BENCHMARKS.md").splitlines())
    for line in lines:
        if "| `shared` | latentr3 |" in line:
            break
    next(lines)
    for line in iter(lambda: next(lines), ""):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        yield cells[0], *(float(cell.split()[0]) for cell in cells[3:5])


def speed():
    rows = list(speedups())
    svg = Svg(960, 150 + 58 * len(rows), "Speed against PyTorch, on the same two CPU cores",
              "How many times as fast latentr3 is, small model. "
              + "; ".join(f"{name}: {shared} times shared, {naive} times naive" for name, shared, naive in rows) + ".")
    legend = (16, "blue", "over our best PyTorch version"), (270, "orange", "over a direct implementation")
    for x, colour, words in legend:
        svg.rect(x, 43, 20, 12, colour, rx=2)
        svg.text(x + 28, 54, words)
    bottom = 84 + 58 * len(rows)
    place = scale(0, math.log(max(naive for *_, naive in rows)), 270, 890)
    for times in (1, 2, 5, 10, 20, 50):
        x = place(math.log(times))
        svg.path([(x, 72), (x, bottom)], "ink" if times == 1 else "grid", 1.5 if times == 1 else 1)
        svg.text(x, bottom + 18, f"{times}", "muted", size=12, anchor="middle")
    svg.text(580, bottom + 40, "times as fast (logarithmic scale)", anchor="middle")
    for number, (name, *times) in enumerate(rows):
        y = 84 + 58 * number
        svg.text(258, y + 24, name, anchor="end")
        for bar, (value, colour) in enumerate(zip(times, ("blue", "orange"))):
            end = place(math.log(value))
            svg.rect(270, y + 21 * bar, end - 270, 17, colour, rx=2)
            svg.text(end + 8, y + 13 + 21 * bar, f"{value:g}")
    return svg


def main():
    pictures = {draw.__name__: draw().source() for draw in (method, stages, latency, forest, training, speed)}
    for name, source in pictures.items():
        (HERE / f"{name}.svg").write_text(source, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()

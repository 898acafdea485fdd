"""Records what a command prints as an SVG in which the lines appear as they did, at some times the speed.

    python docs/pictures/record.py docs/pictures/demo.svg 6 latentr3 demo

The command runs once; standard output and standard error are shown together. Reading the picture needs no script.
"""

import subprocess
import sys
import time
from html import escape
from pathlib import Path

LINE, CHARACTER, WIDTH = 18, 7.4, 152


def record(command):
    """The lines that a command prints, each with the seconds since its start."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = [(time.monotonic() - begin, line.rstrip("\n")) for line in process.stdout]
    if process.wait() != 0:
        sys.exit(f"{' '.join(command)}: ended with {process.returncode}")
    return lines


def picture(command, lines, speed):
    """The lines as an SVG; what a reader who wants no motion sees is the last state."""
    shown = [(0, "$ " + " ".join(command)), *((seconds / speed, text) for seconds, text in lines)]
    width, height = round(WIDTH * CHARACTER) + 32, LINE * len(shown) + 40
    rows = []
    for row, (seconds, text) in enumerate(shown):
        style = f' style="animation-delay:{seconds:.2f}s"'
        rows.append(f'<text x="16" y="{34 + LINE * row}"{style}>{escape(text[:WIDTH])}</text>')
    style = (
        ".back{fill:#f6f8fa;stroke:#d0d7de}text{fill:#1f2328;white-space:pre;animation:show 0s both}"
        "@keyframes show{from{visibility:hidden}to{visibility:visible}}"
        "@media (prefers-color-scheme:dark){.back{fill:#161b22;stroke:#3d444d}text{fill:#e6edf3}}"
        "@media (prefers-reduced-motion:reduce){text{animation:none}}"
    )
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-labelledby="title" font-family="ui-monospace, monospace" font-size="12">',
        f"<title id=\"title\">What {escape(' '.join(command))} prints, at {speed:g} times its speed</title>",
        f"<style>{style}</style>",
        f'<rect class="back" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
        *rows,
        "</svg>\n",
    ])


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    out, speed, command = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    out.write_text(picture(command, record(command), speed), encoding="utf-8")


if __name__ == "__main__":
    main()

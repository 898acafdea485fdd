"""Runs what guides tell their readers to run: the marked blocks of each, in order, in a folder of their own.

    python tests/guides.py PROGRAM GUIDE.md ...

A block runs if the line before it is `<!-- run -->`. One marked `<!-- run in the background -->` is a server: the next block runs
when it listens, and it is ended after the last one. A block that fails is shown with what it printed.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

BLOCK = re.compile(r"<!-- run( in the background)? -->\n```sh\n(.*?)```", re.DOTALL)
SECONDS = 600


def run(guide, environment):
    blocks = BLOCK.findall(guide.read_text(encoding="utf-8"))
    if not blocks:
        sys.exit(f"{guide}: no block is marked to run")
    servers = []
    with tempfile.TemporaryDirectory() as folder:
        # An error that a server answers with fails the block.
        (Path(folder) / ".curlrc").write_text("fail\n")
        environment = environment | {"CURL_HOME": folder}
        try:
            for background, commands in blocks:
                shell = ["bash", "-euo", "pipefail", "-c", commands]
                if background:
                    server = subprocess.Popen(
                        shell, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
                    )
                    servers.append(server)
                    if not any("listening" in line for line in server.stderr):
                        sys.exit(f"{guide}: this server ended before it listened:\n{commands}")
                    continue
                end = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS)
                if end.returncode != 0:
                    sys.exit(f"{guide}: this block ended with {end.returncode}:\n{commands}\n{end.stdout}{end.stderr}")
        finally:
            for server in servers:
                os.killpg(server.pid, signal.SIGTERM)
                server.wait(timeout=30)
    print(f"{guide}: {len(blocks)} blocks ran")


def main():
    program, *guides = map(Path, sys.argv[1:])
    environment = os.environ | {"PATH": f"{program.resolve().parent}:{os.environ['PATH']}"}
    for guide in guides:
        run(guide.resolve(), environment)


if __name__ == "__main__":
    main()

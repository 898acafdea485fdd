#!/usr/bin/env python3
"""Checks that Python's huggingface_hub and we find what the other has downloaded, from a hub on this machine.

    python3 -m venv venv && venv/bin/pip install huggingface_hub
    venv/bin/python tests/huggingface_hub_and_we.py target/release/latentr3 MODEL

MODEL is a Hugging Face folder with config.json, model.safetensors and tokenizer.json.
"""
import hashlib
import http.server
import os
import subprocess
import sys
import tempfile
import threading

program, folder = sys.argv[1:]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "org/tiny"
FILES = ["config.json", "model.safetensors", "tokenizer.json"]


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, with_body):
        head = f"/{NAME}/resolve/"
        revision, _, name = self.path.removeprefix(head).partition("/")
        path = os.path.join(folder, name)
        if not self.path.startswith(head) or revision not in ("main", COMMIT) or not os.path.isfile(path):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        with open(path, "rb") as file:
            content = file.read()
        is_large = name.endswith(".safetensors")
        etag = (hashlib.sha256 if is_large else hashlib.sha1)(content).hexdigest()
        size, first = len(content), 0
        asked = self.headers.get("Range")
        if asked:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first = int(start)
            content = content[first : int(end) + 1 if end else None]
        self.send_response(206 if asked else 200)
        for header, value in {"ETag": f'"{etag}"', "X-Linked-Etag": f'"{etag}"', "X-Linked-Size": size, "X-Repo-Commit": COMMIT}.items():
            self.send_header(header, str(value))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{first + len(content) - 1}/{size}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def do_GET(self):
        self.answer(True)

    def do_HEAD(self):
        self.answer(False)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
# A client that ends leaves its connection.
server.handle_error = lambda *_: None
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
os.environ.pop("HF_HUB_OFFLINE", None)
# It reads the variables when it is imported.
from huggingface_hub import hf_hub_download, scan_cache_dir


def ours(cache, work, **environment):
    command = [program, "init", "--base", NAME, "--out", os.path.join(work, f"made-{len(os.listdir(work))}"), "--quiet"]
    subprocess.run(command, check=True, env=os.environ | {"HF_HUB_CACHE": cache} | environment)


def same(path, name):
    with open(path, "rb") as theirs, open(os.path.join(folder, name), "rb") as original:
        assert theirs.read() == original.read(), path


with tempfile.TemporaryDirectory() as work:
    downloads = os.path.join(work, "by-us")
    ours(downloads, work)
    for name in FILES:
        same(hf_hub_download(NAME, name, cache_dir=downloads, local_files_only=True), name)
    seen = scan_cache_dir(downloads)
    assert not seen.warnings, seen.warnings
    [repository] = seen.repos
    [revision] = repository.revisions
    assert (repository.repo_id, revision.commit_hash, revision.refs) == (NAME, COMMIT, {"main"}), seen

    downloads = os.path.join(work, "by-them")
    for name in FILES:
        hf_hub_download(NAME, name, cache_dir=downloads)
    ours(downloads, work, HF_HUB_OFFLINE="1")
print("huggingface_hub and we find each other's downloads")

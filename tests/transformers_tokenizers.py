#!/usr/bin/env python3
"""Checks that prompts have the tokens that transformers gives the same texts, the one that begins them included.

    python3 -m venv venv && venv/bin/pip install transformers
    venv/bin/python tests/transformers_tokenizers.py target/release/latentr3 [FOLDER ...]

Tokenizers of several families are made here; each FOLDER with a tokenizer of a checkpoint is checked as well. A thousand
hostile titles go through `latentr3 prepare`, whose prompts are compared with what `AutoTokenizer` encodes; a second time as the
message of a chat, with what `apply_chat_template` gives.
"""
import csv
import json
import os
import random
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

program, folders = sys.argv[1], sys.argv[2:]
WORDING = "Read by one customer, oldest first:\n{history}\n\nNext:\n"
CHAT = (
    "{{ bos_token }}{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|stop|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
PIECES = (
    ["a", "the", "Zoë", "naïve", "e\u0301", "ﬁ", "½", "…", "“", "”", "'", '"', "\\", "&", "<", ">", "|", "#", "{history", "}", ",", ".", "—", " ", "  "]
    + ["\u00a0", "\u200b", "\u200d", "\u202e", "\ufeff", "\u3000", "漢字", "カタカナ", "한국", "עברית", "العربية", "👩‍👩‍👧", "🏳️‍🌈", "123", "0.5", "1,000"]
    + ["<s>", "</s>", "<|begin|>", "<|start|>", "[UNK]", "▁", "Ġ", "\u0301", "ß", "İ", "ǆ", "\U0001f600"]
)


def hostile(rng):
    return "".join(rng.choice(PIECES) + rng.choice(["", "", " "]) for _ in range(rng.randint(1, 9)))


def train(tokenizer, trainer):
    rng = random.Random(1)
    tokenizer.train_from_iterator([WORDING, *(hostile(rng) for _ in range(3000))], trainer)
    return tokenizer


def byte_level(folder, cls, begins):
    """As Llama 3, Qwen or SmolLM2 have it."""
    special = ["<|begin|>", "<|end|>", "<|start|>", "<|stop|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    train(tokenizer, trainers.BpeTrainer(vocab_size=900, special_tokens=special, initial_alphabet=alphabet, show_progress=False))
    if begins:
        template = processors.TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A $B", special_tokens=[("<|begin|>", 0)])
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    write(folder, tokenizer, {"tokenizer_class": cls, "bos_token": "<|begin|>", "eos_token": "<|end|>"})


def sentencepiece(folder, adds):
    """As Llama 2 and Mistral have it; what `add_bos_token` says counts."""
    special = ["<unk>", "<s>", "</s>", "<|start|>", "<|stop|>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    train(tokenizer, trainers.BpeTrainer(vocab_size=1500, special_tokens=special + bytes_, limit_alphabet=300, show_progress=False))
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in bytes_]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": False}
    write(folder, tokenizer, config | ({} if adds is None else {"add_bos_token": adds}))


def write(folder, tokenizer, config):
    os.makedirs(folder)
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as file:
        json.dump(config | {"chat_template": CHAT, "clean_up_tokenization_spaces": False}, file)


def check(folder, name, work):
    theirs = AutoTokenizer.from_pretrained(folder)
    rng = random.Random(0)
    titles = {f"i{at}": hostile(rng).strip() or "x" for at in range(1000)}
    titles = {item: title for item, title in titles.items() if theirs.eos_token not in title}
    data = tempfile.mkdtemp(dir=work)
    orders = os.path.join(data, "orders.csv")
    with open(orders, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user", "item", "time", "title"])
        for at, (item, title) in enumerate(titles.items()):
            rows.writerow([f"u{at // 4}", item, at, title])
    template = os.path.join(data, "template.txt")
    with open(template, "w") as file:
        file.write(WORDING)
    checked, begin = 0, set()
    for chat in (False, True):
        if chat and theirs.chat_template is None:
            continue
        out = os.path.join(data, f"prepared-{chat}")
        options = ["--chat"] if chat else []
        command = [program, "prepare", "--quiet", "--data", orders, "--out", out, "--template", template, "--k-core", "1", "--split", "leave-one-out"]
        subprocess.run([*command, "--tokenizer", os.path.join(folder, "tokenizer.json"), *options], check=True)
        with open(os.path.join(out, "catalog.jsonl")) as file:
            catalog = [json.loads(line)["title"] for line in file]
        for split in ("train", "valid", "test"):
            with open(os.path.join(out, f"{split}.jsonl")) as file:
                for row in map(json.loads, file):
                    history = ", ".join(f'"{catalog[item]}"' for item in row["history"])
                    text = WORDING.replace("{history}", history)
                    if chat:
                        expected = theirs.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)
                    else:
                        expected = theirs.encode(text)
                        begin.add(len(expected) - len(theirs.encode(text, add_special_tokens=False)))
                    assert row["prompt"] == expected, f"{name}: {text!r}: {row['prompt']} instead of {expected}"
                    checked += 1
    with open(os.path.join(data, "prepared-False", "dataset.json")) as file:
        shown = json.load(file)["summary"]["begin_token"]
    assert begin == {int(shown is not None)}, (begin, shown)
    print(f"{name}: {checked} prompts, begun by {shown['text'] if shown else 'nothing'}")


with tempfile.TemporaryDirectory() as work:
    made = {
        "Llama 3's kind": lambda folder: byte_level(folder, "PreTrainedTokenizerFast", True),
        "Qwen's kind": lambda folder: byte_level(folder, "Qwen2Tokenizer", False),
        "SmolLM2's kind": lambda folder: byte_level(folder, "GPT2Tokenizer", False),
        "Llama 2's kind": lambda folder: sentencepiece(folder, None),
        "Llama 2's kind, with add_bos_token": lambda folder: sentencepiece(folder, True),
        "Llama 2's kind, without": lambda folder: sentencepiece(folder, False),
    }
    for name, make in made.items():
        folder = os.path.join(work, name)
        make(folder)
        check(folder, name, work)
    for folder in folders:
        check(folder, folder, work)

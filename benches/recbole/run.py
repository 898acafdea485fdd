"""RecBole's SASRec on prepared data: the same rows, histories and items to rank as `latentr3 baseline sasrec` has.

python run.py PREPARED [--epochs 300] [--seed 2020]    prints one JSON line
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

arguments = argparse.ArgumentParser()
arguments.add_argument("prepared", type=Path)
arguments.add_argument("--epochs", type=int, default=300)
arguments.add_argument("--seed", type=int, default=2020)
arguments = arguments.parse_args()

torch.set_num_threads(1)
work = Path(tempfile.mkdtemp())
data = work / "rows"
data.mkdir()
for split in ["train", "valid", "test"]:
    lines = ["user_id:token\titem_id_list:token_seq\titem_id:token"]
    for row in map(json.loads, (arguments.prepared / f"{split}.jsonl").open()):
        lines.append("\t".join([row["user"], " ".join(map(str, row["history"])), str(row["item"])]))
    (data / f"rows.{split}.inter").write_text("\n".join(lines) + "\n")
# Items that no row has are ranked all the same.
items = sum(1 for _ in (arguments.prepared / "catalog.jsonl").open())
(data / "rows.item").write_text("\n".join(["item_id:token", *map(str, range(items))]) + "\n")

config = Config(
    model="SASRec",
    dataset="rows",
    config_dict={
        "data_path": str(work),
        "checkpoint_dir": str(work / "saved"),
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": ["user_id", "item_id_list", "item_id"], "item": ["item_id"]},
        "alias_of_item_id": ["item_id_list"],
        "MAX_ITEM_LIST_LENGTH": 10,
        "train_neg_sample_args": None,
        "eval_args": {"order": "TO", "mode": "full", "group_by": None},
        "metrics": ["Hit", "NDCG"],
        "topk": [5, 10],
        "valid_metric": "NDCG@10",
        "stopping_step": 10,
        "epochs": arguments.epochs,
        "seed": arguments.seed,
        "eval_batch_size": 512,
        "use_gpu": False,
        "show_progress": False,
    },
)
init_seed(config["seed"], True)
dataset = create_dataset(config)
train, valid, test = data_preparation(config, dataset)
model = get_model("SASRec")(config, train.dataset)
trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
_, best = trainer.fit(train, valid, verbose=False)
figures = {
    "items": dataset.item_num - 1,
    "rows": [len(split.dataset) for split in (train, valid, test)],
    "epochs": len(trainer.train_loss_dict),
    "valid": dict(best),
    "test": dict(trainer.evaluate(test)),
}
print(json.dumps(figures))

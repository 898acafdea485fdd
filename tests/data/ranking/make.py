#!/usr/bin/env python3
"""Makes random ranks and what two libraries say of them: `pip install ranx==0.3.21 pytrec_eval-terrier==0.5.11`, then run this file.

A user has one relevant item, at a random place of a list of 20 or not in it at all.
"""
import importlib.metadata, json, pathlib, random
import pytrec_eval
import ranx

CUTOFFS = [1, 3, 5, 10, 20]
USERS, LENGTH = 400, 20

random.seed(11)
# Good places are more frequent; a third of the lists miss the item.
places = range(1, LENGTH + 1)
ranks = [
    random.choices(places, [1 / place for place in places])[0] if random.random() < 2 / 3 else None for _ in range(USERS)
]

relevant, lists = {}, {}
for user, rank in enumerate(ranks):
    items = [f"other{place}" for place in places]
    if rank is not None:
        items[rank - 1] = "target"
    relevant[f"user{user}"] = {"target": 1}
    lists[f"user{user}"] = {item: float(LENGTH - place) for place, item in enumerate(items)}

by_ranx = ranx.evaluate(
    ranx.Qrels(relevant), ranx.Run(lists), [f"{name}@{k}" for name in ("hit_rate", "ndcg") for k in CUTOFFS]
)
names = {f"{name}.{','.join(map(str, CUTOFFS))}" for name in ("success", "ndcg_cut")}
of_users = pytrec_eval.RelevanceEvaluator(relevant, names).evaluate(lists).values()
mean = lambda name: sum(user[name] for user in of_users) / USERS

values = {
    f"ranx {importlib.metadata.version('ranx')}": {
        "hr": {str(k): float(by_ranx[f"hit_rate@{k}"]) for k in CUTOFFS},
        "ndcg": {str(k): float(by_ranx[f"ndcg@{k}"]) for k in CUTOFFS},
    },
    f"pytrec_eval-terrier {importlib.metadata.version('pytrec_eval-terrier')}": {
        "hr": {str(k): mean(f"success_{k}") for k in CUTOFFS},
        "ndcg": {str(k): mean(f"ndcg_cut_{k}") for k in CUTOFFS},
    },
}
path = pathlib.Path(__file__).parent / "values.json"
path.write_text(json.dumps({"ranks": ranks, "values": values}) + "\n")

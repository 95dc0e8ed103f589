"""The tables of docs/open_set.md from the lines of docs/open_set.jsonl."""

import collections

import numpy as np

from tfgraphreg.recipes.compare import paired_interval

SCORES = ("distance, k = 1", "distance, k = 5", "distance, k = 10", "distance, k = 50", "softmax")
DEFAULT = SCORES[0]


def tables(found: list[dict]) -> list[str]:
    """What was measured so far; empty parts for what was not."""
    of = collections.defaultdict(list)
    for line in found:
        of[line["what"], line["left_out"], line["added"]].append(line)
    pairs = list(dict.fromkeys(line["left_out"] for line in found if line["what"] == "index"))
    budgets = sorted({line["added"] for line in found if line["what"] == "retrained"})
    return [
        *by_score(of, pairs),
        *by_limit(of, pairs),
        *by_added(of, pairs, budgets),
        *differences(of, pairs, budgets),
        provenance(found),
    ]


def cell(values) -> str:
    """Mean ± standard deviation of shares, in percent."""
    values = 100 * np.array(list(values))
    spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread}" if len(values) else ""


def row(first: str, cells) -> str:
    return f"| {first} | " + " | ".join(cells) + " |"


def head(first: str, columns) -> list[str]:
    columns = list(columns)
    return [row(first, columns), "|---|" + "--:|" * len(columns)]


def by_score(of, pairs) -> list[str]:
    made = head("AUROC (%) of images of classes left out of training", pairs)
    for score in SCORES:
        cells = (
            cell(x["found"]["scores"][score]["auroc"] for x in of["index", pair, 0])
            for pair in pairs
        )
        made.append(row(f"{score} (used)" if score == DEFAULT else score, cells))
    cells = (cell(x["found"][pair]["auroc"] for x in of["seen", "", 0]) for pair in pairs)
    made.append(row("k = 1, left out of the index alone", cells))
    return [*made, ""]


def by_limit(of, pairs) -> list[str]:
    made = head("Accepted (%) by a limit for 95 %", pairs)
    for score, words in ((DEFAULT, "distance"), ("softmax", "softmax")):
        for kind in ("known", "unknown"):
            cells = (
                cell(x["found"]["scores"][score][f"{kind}_accepted"] for x in of["index", pair, 0])
                for pair in pairs
            )
            made.append(row(f"{words}: images of {kind} classes", cells))
    return [*made, ""]


ANSWERS = (
    ("index, 5 vote", lambda x, m: x["found"]["added"][str(m)]["k = 5"]),
    ("index, nearest", lambda x, m: x["found"]["added"][str(m)]["k = 1"]),
    ("retrained, softmax", lambda x, m: x["found"]["softmax"]),
    ("retrained, index, 5 vote", lambda x, m: x["found"]["index, k = 5"]),
)


def values(of, name: str, pair: str, m: int, of_images: str) -> dict[int, float]:
    """A share of right answers by seed."""
    answer = dict(ANSWERS)[name]
    lines = of["retrained", pair, m] if name.startswith("retrained") else of["index", pair, 0]
    return {x["seed"]: answer(x, m)[of_images] for x in lines}


def by_added(of, pairs, budgets) -> list[str]:
    made = []
    for of_images, words in (("new", "the new classes"), ("all", "all ten classes")):
        made += head(f"Right (%) of {words}, by images added a class", map(str, budgets))
        for pair in pairs:
            for name, _ in ANSWERS:
                cells = (cell(values(of, name, pair, m, of_images).values()) for m in budgets)
                made.append(row(f"{pair}: {name}", cells))
        made.append("")
    made += head("Accepted (%) by the limit, by images added a class", map(str, budgets))
    for pair in pairs:
        for kind, words in (("new", "new classes"), ("known", "the other classes")):
            cells = (
                cell(x["found"]["added"][str(m)][f"{kind}_accepted"] for x in of["index", pair, 0])
                for m in budgets
            )
            made.append(row(f"{pair}: images of {words}", cells))
    return [*made, ""]


def differences(of, pairs, budgets) -> list[str]:
    """The index beside retraining, over all pairs and seeds."""
    made = head("Index, 5 vote, less retrained, softmax (points)", map(str, budgets))
    words = []
    for of_images, said in (("new", "new classes"), ("all", "all classes")):
        cells, verdicts = [], collections.defaultdict(list)
        for m in budgets:
            points = np.array(paired(of, pairs, m, of_images))
            ends = paired_interval(points)
            shown = f" [{ends[0]:+.1f}, {ends[1]:+.1f}]" if ends else ""
            cells.append(f"{points.mean():+.1f}{shown}" if len(points) else "")
            verdicts[verdict(ends)].append(str(m))
        made.append(row(said, cells))
        parts = [f"{name} with {', '.join(at)}" for name, at in verdicts.items()]
        words.append(f"On {said} the index is {'; '.join(parts)} images a class.")
    return [*made, "", "By these intervals: " + " ".join(words), ""]


def paired(of, pairs, m: int, of_images: str) -> list[float]:
    points = []
    for pair in pairs:
        ours, theirs = (values(of, ANSWERS[i][0], pair, m, of_images) for i in (0, 2))
        points += [100 * (ours[seed] - theirs[seed]) for seed in sorted(ours.keys() & theirs)]
    return points


def verdict(ends) -> str:
    if ends is None:
        return "too few runs to judge"
    low, high = ends
    return "better" if low > 0 else "worse" if high < 0 else "not told apart"


def provenance(found: list[dict]) -> str:
    commits = sorted({x["commit"] for x in found})
    versions = sorted({x["versions"]["tensorflow"] for x in found})
    seeds = sorted({x["seed"] for x in found})
    return (
        f"Provenance: {len(found)} runs, mean ± standard deviation over seeds "
        f"{', '.join(map(str, seeds))}, intervals over pairs and seeds; Fashion-MNIST, `cnn`, 600 "
        "training images a class, 5 epochs, alpha 0.1 (the defaults otherwise), 10,000 test "
        f"images; {', '.join(sorted({x['processor'] for x in found}))}, "
        f"{sum(x['seconds'] for x in found) / 60:.0f} minutes; TensorFlow {', '.join(versions)}; "
        f"commits {', '.join(commits)}. Each run is a line of [open_set.jsonl](open_set.jsonl). "
        "Made by `python tools/measure_new_classes.py`."
    )

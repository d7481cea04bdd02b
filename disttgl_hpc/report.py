"""Results as a person reads them."""

from __future__ import annotations

from typing import Any

_COLUMNS = {"mrr": "MRR", "hits_at_10": "Hits@10", "average_precision": "AP", "roc_auc": "ROC-AUC"}
_NAMES = {
    "edgebank_unlimited": "EdgeBank, unlimited",
    "edgebank_windowed": "EdgeBank, windowed",
    "poptrack": "PopTrack",
    "pair_recency": "pair recency",
}


def results_table(record: dict[str, Any]) -> str:
    """Table of a test record: the model beside the heuristics on the same events and candidates."""
    rows = {"TGN (validation)": record["validation"], "TGN (test)": record["test"]}
    rows |= {_NAMES.get(name, name): metrics for name, metrics in record["heuristics"].items()}
    width = max(len(name) for name in rows)
    lines = [" " * width + "".join(f"{title:>9}" for title in _COLUMNS.values())]
    for name, metrics in rows.items():
        lines.append(f"{name:<{width}}" + "".join(f"{metrics[column]:9.4f}" for column in _COLUMNS))
    negatives = record["evaluation_negatives"]
    lines.append(
        f"{record['test']['num_events']:,} test events, each ranked among {negatives} negatives, ties at mid-rank; "
        f"weights of sweep {record['best_sweep'] + 1}; heuristics on test."
    )
    return "\n".join(lines)

"""What a run recorded, for comparing runs."""

import json
from pathlib import Path
from typing import Any


def records(run: Path) -> list[dict[str, Any]]:
    """Records of metrics.jsonl without how long things took, the only part that may differ between equal runs."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "timing"} for line in lines]

"""The pages of the documentation, the commands in them, and the files that these commands name."""

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for page in ROOT.glob("**/*.md")
    if not any(part == "runs" or part.startswith(".venv") for part in page.relative_to(ROOT).parts)
)


def commands(page):
    """Command lines of a page's shell blocks, without comments."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = (line.partition("#")[0].strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line]


def run_as_printed(lines, folder, limit_s=200, **environment):
    """Run command lines in a folder, as a user would type them; the first failure ends the test."""
    found = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    for line in lines:
        done = subprocess.run(
            ["timeout", f"{limit_s}", "bash", "-c", line],
            cwd=folder,
            env=found | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def write_inputs(folder):
    """The raw files that the examples in docs/ name."""
    ends = np.random.default_rng(0).integers(0, 12, (90, 2))
    rows = [f"{one},{other},{time}" for time, (one, other) in enumerate(ends)]
    (folder / "ratings.csv").write_text("user,item,when\n" + "\n".join(rows) + "\n")
    later = [f"{one},{other},{90 + time}" for time, (one, other) in enumerate(ends[:20] + 1)]
    (folder / "monday.csv").write_text("user,item,when\n" + "\n".join(later) + "\n")
    (folder / "pairs.csv").write_text("user,item,when\n3,4,80\n3,5,80\n")
    text = "".join(row.replace(",", " ") + "\n" for row in rows)
    (folder / "messages.txt.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("answers.txt", "comments.txt"):
        (folder / name).write_text(text)

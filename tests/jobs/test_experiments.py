"""The experiments' scripts keep what is there, go on with what was stopped, and mix nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Writes down what it was asked to do; a run of it is complete at once, unless it is told to be stopped.
DISTTGL = """\
#!/bin/bash
echo "$*" >>"$RECORD"
checksum() { sha256sum <"$1" | cut -c 1-64; }
case $1 in
inspect) printf '{\\n  "checksum": "%s"\\n}\\n' "$(checksum "$2")" ;;
generate) echo made >"$2" ;;
pretrain) echo made >"$3" ;;
train)
    run=$4
    [[ $2 != --resume ]] || run=$3
    mkdir -p "$run/checkpoints"
    [[ $2 == --resume ]] || printf '{"checksum": "%s"}' "$(checksum "$2")" >"$run/config.json"
    printf '{"record": "%s"}\\n' "${LAST:-test}" >>"$run/metrics.jsonl"
    ;;
esac
"""
MPIEXEC = """\
#!/bin/bash
"${@:3}"
"""
PYTHON = """\
#!/bin/bash
echo "plot ${*:2}" >>"$RECORD"
"""


class Lab:
    """Calls an experiment with the stand-ins above in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.record = folder, folder / "record"
        (folder / "bin").mkdir()
        for name, text in {"disttgl": DISTTGL, "mpiexec": MPIEXEC, "python": PYTHON}.items():
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        for name in ("one", "two"):
            (folder / f"{name}.events.h5").write_text(name)

    def __call__(self, script: str, *words: str, **environment: str) -> list[str]:
        """What was done, but for looks at the events; ["fails", what was said] if it failed."""
        self.record.write_text("")
        done = subprocess.run(
            ["bash", ROOT / "jobs" / "experiments" / script, *words],
            cwd=self.folder,
            env=os.environ | {"DISTTGL_VENV": str(self.folder), "RECORD": str(self.record), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return ["fails", done.stderr]
        return [line for line in self.record.read_text().splitlines() if not line.startswith("inspect")]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_convergence_keeps_streams_apart(lab: Lab) -> None:
    first, second = (lab("convergence.sh", f"{name}.events.h5", GRIDS="1x1x1") for name in ("one", "two"))
    assert first == [
        "train one.events.h5 --run runs/convergence/one/1x1x1-s0 --grid 1x1x1 --seed 0 --epochs 16",
        "plot runs/convergence/one runs/convergence/one/1x1x1-s0",
    ]
    assert second[0].startswith("train two.events.h5 --run runs/convergence/two/1x1x1-s0")
    assert (lab.folder / "runs/convergence/two/table.txt").exists()


def test_a_run_is_kept_goes_on_and_is_no_other_ones(lab: Lab) -> None:
    call = ("batch_size.sh", "one.events.h5", "--lr", "0.1")
    few = {"SIZES": "75", "SEEDS": "0"}
    run = "runs/batch_size/one/b75-s0"
    assert f"train one.events.h5 --run {run} --local-batch 75 --seed 0 --epochs 8 --lr 0.1" in lab(
        *call, **few, LAST="sweep"
    )
    assert f"train --resume {run}" in lab(*call, **few)
    assert not any(line.startswith("train") for line in lab(*call, **few))
    failed, said = lab(*call[:-1], "0.2", **few)
    assert failed == "fails"
    assert f"{run}: was made with other options than now:" in said
    assert "--lr 0.1" in said
    assert "--lr 0.2" in said
    (lab.folder / "one.events.h5").write_text("anew")
    failed, said = lab(*call, **few)
    assert failed == "fails"
    assert f"{run}: is a run of other events than one.events.h5" in said


def test_a_run_of_before_is_compared_by_its_events(lab: Lab) -> None:
    lab("convergence.sh", "one.events.h5", GRIDS="1x1x2")
    (lab.folder / "runs/convergence/one/1x1x2-s0.command").unlink()
    assert lab("convergence.sh", "one.events.h5", "--lr", "0.5", GRIDS="1x1x2") == [
        "plot runs/convergence/one runs/convergence/one/1x1x2-s0"
    ]
    (lab.folder / "one.events.h5").write_text("anew")
    assert lab("convergence.sh", "one.events.h5", GRIDS="1x1x2")[0] == "fails"


def test_the_table_of_static_memory_covers_all_finished_runs(lab: Lab) -> None:
    lab("static.sh", "one.events.h5", SEEDS="0 1", KINDS="co-trained none")
    lab("static.sh", "two.events.h5", KINDS="none", LAST="sweep")
    told = lab("static.sh", "two.events.h5", KINDS="embedding")[-1]
    runs = ("one/none-s0", "one/none-s1", "one/co-trained-s0", "one/co-trained-s1", "two/embedding-s0")
    assert told == " ".join(["plot runs/static", *(f"runs/static/{run}" for run in runs)])


def test_tables_and_streams_made_with_other_options_are_told(lab: Lab) -> None:
    lab("static.sh", "one.events.h5", KINDS="static-gnn", STATIC_GNN="--epochs 3")
    failed, said = lab("static.sh", "one.events.h5", KINDS="static-gnn", STATIC_GNN="--epochs 4")
    assert failed == "fails"
    assert "static-gnn-s0.static.h5: was made with other options" in said
    lab("long_range.sh", EVENTS="500", SEEDS="0", REPLICAS="1")
    failed, said = lab("long_range.sh", EVENTS="600", SEEDS="0", REPLICAS="1")
    assert failed == "fails"
    assert "far.events.h5: was made with other options" in said


def test_runs_of_other_settings_are_not_averaged(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for seed, epochs in enumerate((4, 6)):
        run = tmp_path / "one" / f"none-s{seed}"
        run.mkdir(parents=True)
        (run / "config.json").write_text(json.dumps({"checksum": "a", "epochs": epochs, "seed": seed}))
    done = subprocess.run(
        [sys.executable, ROOT / "jobs/experiments/plot_static.py", tmp_path, *sorted(tmp_path.glob("one/*"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "differ in epochs 4, 6: move away what is not to be compared" in done.stderr

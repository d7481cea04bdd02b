"""Fuzzing of all readers: a few cases of each, always the same ones."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FUZZ = Path(__file__).parents[1] / "support" / "fuzz_readers.py"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_no_reader_crashes_hangs_or_accepts_invalid_input(tmp_path):
    environment = {name: text for name, text in os.environ.items() if name != "DISTTGL_FUZZ_CASES"}
    command = [sys.executable, "-X", "faulthandler", "-m", "pytest", FUZZ, "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--basetemp={tmp_path / 'fuzz'}", "-s"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    cases, refused = map(int, re.search(r"fuzzed: (\d+) cases, (\d+) refused", done.stdout).groups())
    assert cases > 500
    assert cases // 4 < refused < cases

"""A few of the damaged files that fuzz_commands.py gives to all commands by the thousand."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FUZZ = Path(__file__).parents[1] / "support" / "fuzz_commands.py"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_commands_given_damaged_files_work_or_say_what_is_wrong():
    command = [sys.executable, FUZZ, "--cases", "60"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert "60 cases" in done.stdout

"""What happens when a loss or a gradient is no number any more."""

from __future__ import annotations

import math
from typing import Any

from disttgl_hpc.errors import PeerError, TrainingError
from disttgl_hpc.grid.gradients import GradientSum
from disttgl_hpc.training.run_directory import RunDirectory


def fail_together(comm: Any, run: RunDirectory, gradients: GradientSum, step: int, loss: float) -> None:
    """End training in ``step``, after whose sum all trainers know that something was no number. Collective.

    Raises TrainingError on the first trainer of ``comm`` whose own loss or gradients are to blame, and PeerError on
    the others.
    """
    own = ""
    if not gradients.is_own_finite:
        own = (
            f"loss must be a number, it is {loss}" if not math.isfinite(loss) else "gradients must be numbers"
        )
    complaints = comm.allgather(own)
    guilty = next((trainer for trainer, complaint in enumerate(complaints) if complaint), 0)
    folders = run.whole_checkpoints
    intact = (
        f"the last checkpoint, {folders[-1].name}, is intact" if folders else "there is no checkpoint yet"
    )
    text = (
        f"the {complaints[guilty] or 'sum of all gradients must be a number'} in step {step}: lower --lr and train "
        f"again, or look for extreme features; {intact}"
    )
    if comm.rank == guilty:
        raise TrainingError(text)
    raise PeerError(f"trainer {guilty}: {text}")

"""What a checkpoint of a run means: model, optimiser and memory to named arrays and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from disttgl_hpc.errors import StoreError
from disttgl_hpc.store.checkpoint import read_array, read_checkpoint, write_checkpoint


def save(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    memory: NDArray[np.float32],
    attributes: dict[str, Any],
) -> None:
    """Write weights, optimiser state, the replica's memory (N, 2·dim_memory) and where the run stands."""
    arrays: dict[str, NDArray[Any]] = {"memory": memory}
    moments = optimiser.state_dict()["state"]
    for position, (name, parameter) in enumerate(model.named_parameters()):
        arrays[f"weights/{name}"] = parameter.detach().cpu().numpy()
        for key, value in moments.get(position, {}).items():
            arrays[f"optimiser/{name}/{key}"] = value.detach().cpu().numpy()
    write_checkpoint(path, arrays, attributes)


def load_memory(path: Path, state: NDArray[np.float32]) -> None:
    """Read a checkpoint's node memory into ``state`` (N, 2·dim_memory). Raises StoreError if it does not fit."""
    read_array(path, "memory", state)


def load_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Set a model's weights from a checkpoint and return its attributes.

    Raises StoreError when the file's weights are not those of this model.
    """
    checkpoint = read_checkpoint(path, "weights")
    stored, own = checkpoint.group("weights"), dict(model.named_parameters())
    shapes = {name: tuple(array.shape) for name, array in stored.items()}
    expected = {name: tuple(parameter.shape) for name, parameter in own.items()}
    if shapes != expected:
        odd = sorted(set(shapes.items()) ^ set(expected.items()))[0][0]
        raise StoreError(
            f"{path}: weight {odd} is {shapes.get(odd)} there and {expected.get(odd)} in the configured model: "
            "use the config.json that the run was made with"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(torch.from_numpy(stored[name]))
    return checkpoint.attributes

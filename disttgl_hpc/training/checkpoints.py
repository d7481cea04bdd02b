"""What a run's checkpoints mean: model and optimiser to named arrays and back, and which of them are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from disttgl_hpc.errors import ConfigError, DisttglError, StoreError
from disttgl_hpc.evaluation.metrics import score_of
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.log import get_logger
from disttgl_hpc.memory.co_trained import RowTable
from disttgl_hpc.memory.node_memory import Arrays
from disttgl_hpc.model.parameters import Adam
from disttgl_hpc.planning.run_plan import Before, RunPlan
from disttgl_hpc.store.checkpoint_files import (
    Manifest,
    checkpoint_folder,
    has_manifest,
    part_path,
    read_array,
    read_checkpoint,
    read_manifest,
    remove_checkpoint,
    step_of,
    verify_parts,
    write_checkpoint,
    write_manifest,
)
from disttgl_hpc.training.run_directory import Best, RunDirectory, saved_config

log = get_logger(__name__)


def model_arrays(model: nn.Module, optimiser: Adam) -> dict[str, NDArray[Any]]:
    """Copies of weights and optimiser state by the parameters' names."""
    arrays: dict[str, NDArray[Any]] = {}
    for (name, parameter), state in zip(model.named_parameters(), optimiser.state, strict=True):
        arrays[f"weights/{name}"] = parameter.detach().cpu().numpy().copy()
        for key, value in state.items():
            arrays[f"optimiser/{name}/{key}"] = value.cpu().numpy().copy()
    return arrays


def load_memory(path: Path, replica: int, out: NDArray[np.float32]) -> None:
    """Read a replica's memory into ``out`` (N, 2·dim_memory) from a node's part. Raises StoreError."""
    read_array(path, f"memory/{replica}", out)


def static_arrays(table: RowTable) -> dict[str, NDArray[Any]]:
    """Copies of a co-trained static memory and of its optimiser's state."""
    return {f"static/{name}": array.copy() for name, array in table.arrays.items()}


def load_static(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Read those of the arrays of :func:`static_arrays` that are named, from the first node's part.

    Raises StoreError.
    """
    for name, array in arrays.items():
        read_array(path, f"static/{name}", array)


def load_weights(path: Path, model: nn.Module) -> None:
    """Set a model's weights from the first node's part. Raises StoreError when they are not of this model."""
    stored, own = read_checkpoint(path, "weights/").group("weights"), dict(model.named_parameters())
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


def load_optimiser(path: Path, model: nn.Module, optimiser: Adam) -> None:
    """Set an optimiser's state, but for its learning rate, from the first node's part. Raises StoreError."""
    stored = read_checkpoint(path, "optimiser/")
    for (name, _), state in zip(model.named_parameters(), optimiser.state, strict=True):
        moments = stored.group(f"optimiser/{name}")
        if moments.keys() != state.keys():
            raise StoreError(f"{path}: holds no state of an optimiser: resume from another checkpoint")
        for key, array in moments.items():
            state[key].copy_(torch.from_numpy(array))


def trainer_arrays(trainer: int, totals: NDArray[np.float64], held: NDArray[np.float32] | None) -> Arrays:
    """A trainer's share: totals (2,) of the sweep so far, and the memory (n, 2·dim_memory) its next pass needs."""
    arrays: dict[str, NDArray[Any]] = {f"trainers/{trainer}/totals": totals.copy()}
    if held is not None:
        arrays[f"trainers/{trainer}/held"] = held
    return arrays


def read_trainer(path: Path, trainer: int) -> tuple[NDArray[np.float64], NDArray[np.float32] | None]:
    """What :func:`trainer_arrays` was given. Raises StoreError."""
    share = read_checkpoint(path, f"trainers/{trainer}/").group(f"trainers/{trainer}")
    if "totals" not in share:
        raise StoreError(f"{path}: holds nothing of trainer {trainer}: resume from another checkpoint")
    return share["totals"], share.get("held")


def check_attributes(manifest: Manifest) -> None:
    """Raise StoreError unless a manifest says of its checkpoint what :class:`RunCheckpoints` writes."""
    found, counts = manifest.attributes, ("epochs", "sweeps", "steps")
    try:
        numbers = [found[name] for name in ("step", "sweep", "epochs")] + [
            found["before"][name] for name in counts
        ]
        is_known = all(type(number) is int and number >= 0 for number in numbers)
        is_known &= type(found["ends_sweep"]) is bool
        is_known &= set(found["before"]) - {"same_events"} == set(counts)
        is_known &= type(found["before"].get("same_events", True)) is bool
        GridShape.parse(found["grid"])
        saved_config(found["settings"])
        is_known &= type(found["settings"]["checksum"]) is str
    except (LookupError, TypeError, AttributeError, DisttglError):
        is_known = False
    if not is_known:
        raise StoreError(
            f"{manifest.folder}: its manifest must say where a run stands, it does not: resume from another "
            "checkpoint"
        )


def newest_whole(run: RunDirectory, grid: str | None) -> Manifest | None:
    """The newest undamaged checkpoint from which ``grid`` can continue; None: the newest at the end of a sweep."""
    damaged, other_grid = [], ""
    folders = run.whole_checkpoints
    num_recorded = len(run.sweeps()) if folders else 0
    for folder in reversed(folders):
        try:
            manifest = read_manifest(folder)
            check_attributes(manifest)
            needed = manifest.attributes["sweep"] - manifest.attributes["ends_sweep"]
            if num_recorded < needed:
                raise StoreError(f"{run.metrics_file}: lacks the sweeps before {folder.name}: restore it")
            if manifest.attributes["grid"] == grid or manifest.attributes["ends_sweep"]:
                verify_parts(manifest)
                return manifest
            other_grid = manifest.attributes["grid"]
        except StoreError as error:
            log.warning("%s", error)
            damaged.append(f"{folder.name}")
    if damaged:
        raise StoreError(
            f"{run.checkpoints}: all checkpoints are damaged, or records of their sweeps are missing "
            f"({', '.join(damaged)}): restore them, or begin another run"
        )
    if other_grid:
        what = "a longer stream" if grid is None else f"grid {grid}"
        remedy = "the original events" if grid is None else f"--grid {other_grid}"
        raise ConfigError(
            f"{run.path}: {what} can continue only from the end of a sweep, and {other_grid} has not completed one: "
            f"resume with {remedy}, or begin another run"
        )
    return None


def best_before(run: RunDirectory, newest: Manifest, *, is_same_grid: bool) -> tuple[Best | None, bool]:
    """The best sweep until a checkpoint, on its events, and whether the sweep that ends with it is recorded.

    Raises StoreError unless the best sweep's checkpoint is whole. It may have been dropped for that of a better
    sweep which will be trained or validated again.
    """
    found, sweeps = newest.attributes, run.sweeps()
    recorded = [record for record in sweeps if record["step"] <= found["step"]]
    is_recorded = found["ends_sweep"] and len(recorded) == found["sweep"]
    before = Before(**found["before"])
    if not recorded or (not before.same_events and recorded[-1]["step"] <= before.steps):
        return None, is_recorded
    best = run.best_of(recorded[-1])
    if best is None:
        return None, is_recorded
    last = run.best_of(sweeps[-1])
    is_superseded = is_same_grid and last is not None and last.step > found["step"]
    will_be_validated = found["ends_sweep"] and not is_recorded
    folder = checkpoint_folder(run.checkpoints, best.step)
    if has_manifest(folder) or not (is_superseded or will_be_validated):
        try:
            manifest = read_manifest(folder)
            check_attributes(manifest)
            verify_parts(manifest)
        except StoreError as error:
            raise StoreError(
                f"{folder}: must be the checkpoint of the best sweep ({error}): restore it, or begin another run"
            ) from error
    named = recorded[best.sweep - 1] if 1 <= best.sweep <= len(recorded) else {}
    is_same = named.get("step") == best.step and run.best_of(named) == best
    metrics = named.get("validation")
    if not is_same or not isinstance(metrics, dict) or score_of(metrics) != best.score:
        raise StoreError(
            f"{run.metrics_file}: the record of sweep {best.sweep} must be the best until then, it is not: restore the "
            "file, or begin another run"
        )
    return best, is_recorded


class RunCheckpoints:
    """Writes one node's parts of a run's checkpoints and, on the first node, their manifests; drops old ones.

    The newest checkpoints, the best sweep's and that of the last sweep's end, from which another grid can
    continue, are kept.
    """

    def __init__(
        self, run: RunDirectory, plan: RunPlan, node: int, settings: dict[str, Any], keep: int
    ) -> None:
        self._run, self._plan, self._node, self._settings, self._keep = run, plan, node, settings, keep

    def write_part(self, counter: int, arrays: Arrays) -> str:
        """Write this node's part of the checkpoint after step ``counter`` of the plan. Raises StoreError."""
        return write_checkpoint(
            part_path(self._folder(counter), self._node), arrays, self._attributes(counter)
        )

    def complete(self, counter: int, checksums: Sequence[str]) -> None:
        """Write the manifest, then drop checkpoints that are no longer needed. Raises StoreError."""
        write_manifest(self._folder(counter), checksums, self._attributes(counter))
        self._drop_old()

    def _folder(self, counter: int) -> Path:
        return checkpoint_folder(self._run.checkpoints, self._plan.before.steps + counter + 1)

    def _attributes(self, counter: int) -> dict[str, Any]:
        """Where the run stands, on which grid and after what; with the settings and checksums of its inputs."""
        plan, before = self._plan, self._plan.before
        sweeps = (counter + 1) // plan.num_batches
        return {
            "step": before.steps + counter + 1,
            "sweep": before.sweeps + sweeps,
            "ends_sweep": counter in plan.sweep_ends,
            "epochs": before.epochs + sweeps * plan.epochs_per_sweep,
            "grid": plan.shape.option,
            "before": vars(before),
            "settings": self._settings,
        }

    def _drop_old(self) -> None:
        """Remove checkpoints that are no longer needed. Raises StoreError if records do not name the best one."""
        folders, best = self._run.whole_checkpoints, self._run.best()
        kept = {step_of(folder) for folder in folders[-self._keep :]} | {best.step if best else 0}
        kept |= {step_of(folder) for folder in [*filter(_ends_sweep, folders)][-1:]}
        for folder in folders:
            if step_of(folder) not in kept:
                try:
                    remove_checkpoint(folder)
                except OSError as error:  # it takes room and does no harm
                    log.warning("%s: an old checkpoint cannot be removed (%s)", folder, error.strerror)


def _ends_sweep(folder: Path) -> bool:
    """Whether a checkpoint is undamaged, as far as its manifest says, and was taken at the end of a sweep."""
    try:
        return bool(read_manifest(folder).attributes["ends_sweep"])
    except (StoreError, LookupError):
        return False

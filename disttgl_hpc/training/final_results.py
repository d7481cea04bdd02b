"""The final results of a run: its best weights on validation and test, beside the heuristics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.config import CO_TRAINED
from disttgl_hpc.evaluation.candidates import Candidates, Part, held_out_parts
from disttgl_hpc.evaluation.classes import class_baselines
from disttgl_hpc.evaluation.evaluator import Evaluator, Team
from disttgl_hpc.evaluation.heuristics import best_half_life, heuristic_scores
from disttgl_hpc.evaluation.part_metrics import NewNodes, ranked
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.collectives import decide_together
from disttgl_hpc.grid.job import watching
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.log import get_logger
from disttgl_hpc.model.input_builder import InputBuilder, build_model, device_of
from disttgl_hpc.model.tgn import Tgn
from disttgl_hpc.model.threads import prepare_process
from disttgl_hpc.planning.run_plan import batching_of
from disttgl_hpc.store.checkpoint_files import read_manifest, verify_parts
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.training.checkpoints import check_attributes, load_memory, load_static, load_weights
from disttgl_hpc.training.run_directory import RunDirectory, open_events, saved_config
from disttgl_hpc.training.run_events import (
    check_same_static_memory,
    static_settings,
    with_static_memory,
    with_task,
)

log = get_logger(__name__)


def final_results(
    run: RunDirectory, evaluator: Evaluator, model: Tgn, state: NDArray[np.float32]
) -> dict[str, Any]:
    """Validation and test with a run's best weights, which ``model`` takes on, and the memory they left.

    Collective over the evaluator's team. ``state`` (N, 2·dim_memory) is where the memory is loaded; it and a
    co-trained static memory, loaded where the evaluator's inputs have theirs, are shared by the team's
    members of a node. The heuristics beside the model are added by the team's first member only.
    """
    team, stream, config = evaluator.team, evaluator.stream, evaluator.config
    best = run.best_checkpoint
    load_weights(best, model)
    team.fence()
    if team.node_index == 0:
        load_memory(best, 0, state)
        if evaluator.inputs.co_trained is not None:
            load_static(best, {"rows": evaluator.inputs.co_trained})
    team.fence()
    results: dict[str, Any] = {"best_sweep": run.read_best()["sweep"]}
    parts = held_out_parts(stream, config)
    for part in parts:
        results[part.name] = evaluator.evaluate(model, state, part).as_dict()
    if team.index == 0:
        results |= _besides(evaluator, *parts)
    return results


def _besides(evaluator: Evaluator, validation: Part, test: Part) -> dict[str, Any]:
    """What stands beside the model's results: heuristics and baselines on test, and what was ranked among."""
    stream, config = evaluator.stream, evaluator.config
    besides: dict[str, Any] = {"task": config.task}
    if config.predicts_links:
        besides["heuristics"] = _heuristics(stream, evaluator.candidates, validation, test)
        besides["evaluation_negatives"] = evaluator.candidates.num_negatives(test)
        besides["evaluation_strategy"] = config.evaluation_strategy
    if stream.targets is not None:
        found = class_baselines(stream, stream.targets, test.first, test.scored_last)
        besides["baselines"] = {name: metrics.as_dict() for name, metrics in found.items()}
    return besides


def _heuristics(
    stream: EventStream, candidates: Candidates, validation: Part, test: Part
) -> dict[str, dict[str, Any]]:
    """Metrics of the heuristics on test, on the model's candidates; validation sets PopTrack's half-life."""
    ranges = [(part.first, part.scored_last) for part in (validation, test)]
    tuning, asked = (candidates.of(*bounds) for bounds in ranges)
    in_tuning, in_asked = (candidates.counted(*bounds) for bounds in ranges)
    half_life = best_half_life(stream, *ranges[0], tuning, counted=in_tuning)
    new = NewNodes.of(stream, *ranges[1])
    scores = heuristic_scores(stream, *ranges[1], asked, half_life)
    return {name: ranked(of_one, new, in_asked).as_dict() for name, of_one in scores}


def best_grid(run: RunDirectory) -> str:
    """The grid that the best sweep was trained on, whose batches decide which mail is pending after it."""
    manifest = read_manifest(run.best_checkpoint.parent)
    check_attributes(manifest)
    return str(manifest.attributes["grid"])


def check_files(run: RunDirectory, store: EventStore) -> None:
    """Raise StoreError unless the events, and the best checkpoint's parts, are whole."""
    store.check_contents()
    verify_parts(read_manifest(run.best_checkpoint.parent))


def evaluate_run(
    run: RunDirectory, events: Path | None, world: Any, static: Path | None = None
) -> dict[str, Any]:
    """Repeat the final evaluation of a run from its files, shared among all ranks of ``world`` (collective).

    events, static: the event store and the file of static memory, if they are no longer where the run found
    them. Raises StoreError if a file is missing or is not the one the run was made with.
    """
    settings = run.read_config()
    config = saved_config(settings)
    prepare_process(config.threads)
    if static is not None:
        config = replace(config, static=str(static))
    check_same_static_memory(settings, static_settings(config), run.path, "evaluate RUN --static FILE")
    store = open_events(Path(events or settings["events"]), settings["checksum"])
    store = with_task(with_static_memory(store, config), config)
    decide_together(world, lambda: check_files(run, store))
    stream = store.stream
    device = device_of(config, world.rank)
    team = Team(index=world.rank, size=world.size, gather=world.gather, share=world.bcast)
    batching = batching_of(stream, config, GridShape.parse(best_grid(run)))
    co_trained = (
        np.empty((stream.num_nodes, config.dim_memory), np.float32) if config.static == CO_TRAINED else None
    )
    evaluator = Evaluator(stream, config, batching, InputBuilder(stream, device, co_trained), team)
    state = np.empty((stream.num_nodes, 2 * config.dim_memory), np.float32)
    with watching(world, "scorer") as roster:
        for line in roster:
            log.info("%s", line)
        return final_results(run, evaluator, build_model(stream, config).to(device), state)

"""Evaluation as tests ask for it: alone, or by a team of threads that stand for ranks."""

import threading

import numpy as np
import torch
from run_helpers import SMALL

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.evaluation.candidates import held_out_parts
from disttgl_hpc.evaluation.evaluator import Evaluator, Team
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.model.input_builder import InputBuilder, build_model
from disttgl_hpc.planning.run_plan import batching_of


def evaluator_of(stream, team=None, **settings):
    config = TrainConfig(**{**SMALL, **settings})
    inputs = InputBuilder(stream, torch.device("cpu"))
    return Evaluator(stream, config, batching_of(stream, config, GridShape(1, 1, 1)), inputs, team or Team())


def memory_of(stream):
    """Any memory, as if a sweep had left it."""
    size = (stream.num_nodes, 2 * SMALL["dim_memory"])
    return np.random.default_rng(1).normal(size=size).astype(np.float32)


def run_team(stream, size, node_size, **settings):
    """Evaluate both parts with ``size`` members, ``node_size`` of which share a memory; → results by member."""
    gathered, shared, meet = [None] * size, [None], threading.Barrier(size)
    states = [memory_of(stream) for _ in range(size // node_size)]
    results = [None] * size

    def member(index):
        def collect(own):
            gathered[index] = own
            meet.wait()
            everything = list(gathered)
            meet.wait()
            return None if index else everything

        def gather(own):
            everything = collect(own)
            return None if everything is None else np.concatenate(everything)

        def decide(decide, _what):
            if index == 0:
                shared[0] = decide()
            meet.wait()
            return shared[0]

        place = index, size, index % node_size, node_size
        team = Team(*place, lambda: meet.wait() and None, gather, collect, decide)
        evaluator, state = evaluator_of(stream, team, **settings), states[index // node_size]
        model = build_model(stream, evaluator.config)
        parts = held_out_parts(stream, evaluator.config)
        results[index] = [evaluator.evaluate(model, state, part) for part in parts]

    threads = [threading.Thread(target=member, args=(index,)) for index in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, states

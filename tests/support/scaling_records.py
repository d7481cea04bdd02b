"""Records of ``disttgl bench scaling`` as the model of scaling reads them, made up."""

PHASES = {
    "sample": 0.02,
    "read": 0.0,
    "inputs": 0.02,
    "forward": 0.36,
    "write": 0.0,
    "backward": 0.5,
    "optimiser": 0.1,
}


def scaling_record(rounds, *, events=600, cpu_s=None, daemon_us=2.0, daemons=1, edge_bytes=0):
    """Record of one trainer whose steps took ``rounds``, a list of seconds for each round."""
    mean_s = sum(map(sum, rounds)) / sum(map(len, rounds))
    entry = {
        "grid": "1x1x1",
        "trainers": 1,
        "nodes": 1,
        "cores": 2,
        "daemons": daemons,
        "oversubscribed": False,
        "waiting_share": 0.0,
        "memory_wait_s": [0.0],
        "events_per_s": events / mean_s,
        "trainer_cpu_us": 1e6 * (mean_s if cpu_s is None else cpu_s) / events,
        "daemon_cpu_us": daemon_us if daemons else 0.0,
        "rounds": [
            {
                "events_per_s": events * len(steps) / sum(steps),
                "elapsed_s": sum(steps),
                "model_bytes": 800_000,
                "step_s": [steps],
                "phases_s": {phase: share * sum(steps) for phase, share in PHASES.items()},
            }
            for steps in rounds
        ],
    }
    return {
        "stream": "made-up",
        "train_events": 100 * events,
        "edge_bytes": edge_bytes,
        "steps": len(rounds[0]),
        "machine": {"processor": "a processor"},
        "settings": {"negatives_per_event": 1, "num_neighbors": 10, "local_batch": events},
        "grids": [entry],
    }

"""Runs as their files would tell of them, made up."""

from disttgl_hpc.report.run_facts import RunFacts

METRICS = {"mrr": 0.5, "hits_at_10": 0.8, "average_precision": 0.3, "roc_auc": 0.9, "num_events": 100}
PHASES = (
    "sample",
    "read",
    "inputs",
    "forward",
    "write",
    "backward",
    "reduce",
    "optimiser",
    "checkpoint",
    "load",
)


def sweep(number, *, steps=10, ranks=2, loss=0.5, **changes):
    """A record of a sweep as it is written now."""
    validation = METRICS | {"mrr": 0.5 + 0.01 * number}
    trainers = {name: [0.1 + 0.01 * rank for rank in range(ranks)] for name in PHASES}
    trainers |= {name: [3.0] * ranks for name in ("train", "evaluate")}
    memory = {"resident_mib": [300.0] * ranks, "peak_mib": [400.0] * ranks}
    daemon = {name: [0.5] for name in ("read", "write", "snapshot", "checkpoint", "wait")}
    course = {
        "step": [steps * (number - 1) + 5, steps * number],
        "loss": [loss, loss / 2],
        "elapsed_s": [1.0, 2.5],
    }
    record = {
        "record": "sweep",
        "sweep": number,
        "step": steps * number,
        "events": 1000,
        "loss": loss,
        "validation": validation,
        "timing": {
            "events_per_s": 333.3,
            "train_s": 3.0,
            "evaluate_s": 1.0,
            "course": course,
            "trainers": {"rank": list(range(ranks)), "node": [0] * ranks, **trainers, **memory},
            "daemons": {"rank": [ranks], "node": [0], **daemon, "resident_mib": [90.0], "peak_mib": [95.0]},
        },
    }
    return record | changes


def final_test(mrr=0.6):
    """A record of the final test."""
    return {
        "record": "test",
        "best_sweep": 2,
        "validation": METRICS,
        "test": METRICS | {"mrr": mrr},
        "heuristics": {"poptrack": METRICS | {"mrr": 0.4}},
        "evaluation_negatives": 49,
        "evaluation_strategy": "random",
    }


def facts(name="run", *, seed=0, sweeps=2, mrr=0.6, trace=None, test=True, **settings):
    """A finished run, unless told otherwise."""
    config = {
        "events": "/data/toy.events.h5",
        "checksum": "c" * 64,
        "seed": seed,
        "grid": "1x1x2",
        "lr": 0.001,
    }
    return RunFacts(
        name=name,
        config=config | settings,
        sweeps=[sweep(number) for number in range(1, sweeps + 1)],
        test=final_test(mrr) if test else None,
        stream="toy",
        captured=[
            {
                "batch": 600,
                "share": 0.25,
                "cold": 0.1,
                "age_events": {"25 %": 3, "median": 5, "75 %": 9, "99 %": 70},
            }
        ],
        trace=trace,
    )


def trace():
    """Two steps of a trainer, its loading thread, and a daemon."""

    def block(pid, tid, name, begin_ms, end_ms, **args):
        times = {"ts": 1e3 * begin_ms, "dur": 1e3 * (end_ms - begin_ms)}
        return {"ph": "X", "name": name, "pid": pid, "tid": tid, **times, "args": args}

    def named(kind, pid, tid, name):
        return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}

    events = [
        named("process_name", 0, 0, "rank 0: trainer of replica 0, lane 0, slice 0"),
        named("thread_name", 0, 0, "steps"),
        named("thread_name", 0, 1, "loading thread"),
        named("process_name", 1, 0, "rank 1: daemon of node 0"),
        named("thread_name", 1, 0, "replica 0"),
        block(0, 0, "step", 0, 10, step=20),
        block(0, 0, "forward", 1, 5),
        block(0, 0, "backward", 5, 9),
        block(0, 0, "step", 10, 20, step=21),
        block(0, 0, "forward", 11, 19),
        block(0, 1, "load", 2, 4, counter=22),
        block(1, 0, "write", 5, 5.2, counter=20, replica=0, slice=0),
        block(1, 0, "read", 5.2, 5.5, counter=21, replica=0, slice=0),
    ]
    about = {"kind": "disttgl-trace", "schema_version": 1, "clock_error_us": 90.0}
    return {"traceEvents": events, "otherData": about}

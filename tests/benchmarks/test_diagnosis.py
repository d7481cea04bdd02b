"""The doctor's checks of made-up machines, most of them faulty."""

from dataclasses import replace

import pytest

from disttgl_hpc.benchmarks.doctor import JobFacts, RankFacts, Verdict, diagnose, launched_by

RANK = RankFacts(
    node="n0",
    home=0,
    launched=("srun", 4),
    mpi="MPICH 5.0",
    versions=(("torch", "2.13"),),
    window="",
    cores=frozenset({0, 1}),
    omp_threads="1",
    clock_s=1000.0,
    store="c" * 64,
    store_error="",
    run_error="",
    free_disk=10**9,
    free_shared=10**9,
    cache="/cache",
    gpus=1,
)


def job(changes=None, **settings):
    """Two nodes of a trainer and a daemon; ``changes`` of facts by rank, None for all of them."""
    ranks = [replace(RANK, node=f"n{number // 2}", home=number // 2 * 2) for number in range(4)]
    for number, change in (changes or {}).items():
        for at in range(4) if number is None else [number]:
            ranks[at] = replace(ranks[at], **change)
    facts = JobFacts(
        ranks=ranks,
        trainers=(0, 2),
        grid="1×1×2: 2 trainers and 2 daemons",
        grid_error="",
        threads=1,
        device="cuda",
        events="x.events.h5",
        shared_bytes=10**8,
        disk_bytes=10**8,
        run="runs/x",
    )
    return replace(facts, **settings)


def test_a_healthy_allocation_has_nothing_to_remedy():
    checks = diagnose(job())
    assert {check.verdict for check in checks} == {Verdict.GOOD}
    assert not any(check.remedy for check in checks)
    assert [check.what for check in checks if check.what == "GPUs"]
    assert not [check for check in diagnose(job(device="cpu")) if check.what == "GPUs"]


@pytest.mark.parametrize(
    ("what", "verdict", "text", "facts"),
    [
        (
            "launcher",
            Verdict.FAILS,
            "srun started 8 processes, MPI has 4 ranks",
            {0: {"launched": ("srun", 8)}},
        ),
        ("MPI library", Verdict.FAILS, "rank 0: MPICH 5.0; rank 3: MPICH 4.1", {3: {"mpi": "MPICH 4.1"}}),
        ("nodes", Verdict.SLOW, "n0: 2 ranks, n0: 2 ranks", {None: {"node": "n0"}}),
        ("shared windows", Verdict.FAILS, "rank 2: was not read", {2: {"window": "was not read"}}),
        ("threads", Verdict.SLOW, "(not set), --threads 1", {1: {"omp_threads": ""}}),
        ("shared memory", Verdict.FAILS, "95 MiB needed on a node, 10 MiB", {2: {"free_shared": 10 << 20}}),
        (
            "events",
            Verdict.FAILS,
            "n1: x: no such file",
            {2: {"store_error": "x: no such file: check the path"}},
        ),
        ("events", Verdict.FAILS, "differs between n0 and n1", {3: {"store": "d" * 64}}),
        ("run directory", Verdict.FAILS, "n1: y is full", {2: {"run_error": "y is full: make room"}}),
        ("run directory", Verdict.FAILS, "10 MiB free, checkpoints need 95", {None: {"free_disk": 10 << 20}}),
        ("clocks", Verdict.SLOW, "2.50 s apart", {1: {"clock_s": 1002.5}}),
        ("software", Verdict.FAILS, "rank 1: torch 2.4", {1: {"versions": (("torch", "2.4"),)}}),
        ("compiled loops", Verdict.SLOW, "n1: no folder", {2: {"cache": ""}}),
        ("GPUs", Verdict.FAILS, "n1: 0 GPUs for 1 trainer", {2: {"gpus": 0}}),
    ],
)
def test_a_fault_is_named_with_a_remedy(what, verdict, text, facts):
    ill = [check for check in diagnose(job(facts)) if check.verdict is not Verdict.GOOD]
    assert [check.what for check in ill] == [what]
    assert ill[0].verdict is verdict
    assert text in ill[0].found
    assert ill[0].remedy


def test_a_grid_that_does_not_fit_fails_with_the_command_that_would():
    (ill,) = (
        c for c in diagnose(job(grid="", grid_error="9 ranks, started were 3: mpiexec -n 9")) if c.remedy
    )
    assert (ill.what, ill.found, ill.remedy) == ("grid", "9 ranks, started were 3", "mpiexec -n 9")
    assert ill.verdict is Verdict.FAILS


def cores_of(masks, trainers, threads=1):
    """The verdict on cores of one node whose ranks are bound to these cores."""
    ranks = [replace(RANK, launched=None, cores=frozenset(mask)) for mask in masks]
    facts = replace(job(device="cpu"), ranks=ranks, trainers=trainers, threads=threads)
    return next(check for check in diagnose(facts) if check.what == "cores")


def test_two_trainers_bound_to_one_core_are_found_and_a_daemon_there_is_harmless():
    assert cores_of([{0}, {1}, {1}], (0, 1)).verdict is Verdict.GOOD
    crowded = cores_of([{0}, {0}, {1}], (0, 1))
    assert crowded.verdict is Verdict.SLOW
    assert "2 trainers of 1 thread (ranks 0, 1) on 1 core (0)" in crowded.found
    assert cores_of([{0, 1}, {0, 1}, {0, 1}], (0, 1)).verdict is Verdict.GOOD
    assert cores_of([{0, 1}, {0, 1}, {0, 1}], (0, 1), threads=2).verdict is Verdict.SLOW
    assert cores_of([{0}, {1, 2}, {1, 2}, {3}], (0, 1, 2)).verdict is Verdict.GOOD
    assert "4 trainers" in cores_of([{0, 1, 2}] * 5, (0, 1, 2, 3)).found


def test_without_events_their_checks_say_so_and_nothing_fails():
    checks = {c.what: c for c in diagnose(job(events="", shared_bytes=None, disk_bytes=None))}
    assert {what for what, c in checks.items() if c.verdict is Verdict.UNKNOWN} == {"shared memory", "events"}
    assert not [c for c in checks.values() if c.verdict is Verdict.FAILS]


@pytest.mark.parametrize(
    ("environment", "launch"),
    [
        ({}, None),
        ({"PMI_SIZE": "4", "PMI_RANK": "2"}, ("launcher", 4, 2)),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"}, ("mpiexec", 4, 0)),
        # mpiexec in a Slurm job starts one task a node, which starts the ranks.
        ({"PMI_SIZE": "4", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_ID": "0"}, ("launcher", 4, 0)),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3"}, ("srun", 4, 3)),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_ID": "batch"}, None),
        ({"SLURM_STEP_NUM_TASKS": "4"}, None),
    ],
)
def test_what_the_launcher_says_of_itself(environment, launch):
    assert launched_by(environment) == launch

"""The newest checkpoints of two runs, compared bit for bit."""

from disttgl_hpc.store.checkpoint_files import read_checkpoint, read_manifest


def state_of(run):
    """Every array of a run's newest checkpoint, by name, with its step."""
    manifest = read_manifest(run.whole_checkpoints[-1])
    arrays = {}
    for node in range(len(manifest.checksums)):
        arrays |= read_checkpoint(manifest.part(node)).arrays
    return manifest.attributes["step"], arrays


def assert_same_state(one, other):
    """Same step, same names, same bits."""
    (step, mine), (other_step, theirs) = state_of(one), state_of(other)
    assert step == other_step
    assert sorted(mine) == sorted(theirs)
    for name, array in mine.items():
        assert array.dtype == theirs[name].dtype, name
        assert array.shape == theirs[name].shape, name
        assert array.tobytes() == theirs[name].tobytes(), name

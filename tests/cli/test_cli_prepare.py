import numpy as np
import pytest
from click.testing import CliRunner

from disttgl_hpc.cli.prepare import prepare
from disttgl_hpc.errors import ConfigError, InputError
from disttgl_hpc.store.event_store import EventStore


def run(*arguments):
    return CliRunner().invoke(prepare, [str(argument) for argument in arguments])


@pytest.fixture
def ratings(tmp_path):
    path = tmp_path / "ratings.csv"
    rows = "".join(f"{k % 5},{k % 3},{k},{k % 2},{k / 8},{k / 4}\n" for k in range(20))
    path.write_text("user,item,t,kind,f0,f1\n" + rows)
    return path


def test_options_reach_the_store(tmp_path, ratings):
    output = tmp_path / "r.events.h5"
    options = [
        "--columns",
        "src=user,dst=item,time=t,label=kind,features=f0:f1",
        "--bipartite",
        "--name",
        "mine",
    ]
    result = run(ratings, output, *options, "--split", "0.5/0.25/0.25", "--feature-dtype", "float16")
    assert result.exit_code == 0, result.output
    assert result.output == f"{output}: 20 events, 8 nodes, training up to event 10, validation up to 15\n"
    stream = EventStore.open(output).stream
    assert (stream.name, stream.num_src, stream.dim_edge) == ("mine", 5, 2)
    assert stream.edge_features.dtype == "float16"


def test_logarithms_of_features(tmp_path, ratings):
    columns = "src=user,dst=item,time=t,features=f0+f1"
    run(ratings, tmp_path / "r.events.h5", "--columns", columns, "--log-features", "f1")
    features = EventStore.open(tmp_path / "r.events.h5").stream.edge_features
    np.testing.assert_allclose(features[19], [19 / 8, np.log1p(19 / 4)], rtol=1e-6)


def test_name_is_the_outputs_own_unless_given(tmp_path, ratings):
    run(ratings, tmp_path / "r.events.h5", "--columns", "src=user,dst=item,time=t")
    assert EventStore.open(tmp_path / "r.events.h5").stream.name == "r"


def test_node_features_and_a_split_of_its_own(tmp_path):
    ids, time = np.arange(20) % 5, np.arange(20)
    np.savez(tmp_path / "in.npz", src=ids, dst=ids[::-1], time=time, split=np.minimum(time // 8, 2))
    np.save(tmp_path / "nodes.npy", np.eye(5))
    arguments = [tmp_path / "in.npz", tmp_path / "r.events.h5", "--node-features", tmp_path / "nodes.npy"]
    assert "training up to event 8, validation up to 16" in run(*arguments).output
    assert EventStore.open(tmp_path / "r.events.h5").stream.node_features.tolist() == np.eye(5).tolist()
    assert "training up to event 10" in run(*arguments, "--split", "0.5/0.25/0.25", "--force").output
    assert "does not exist" in run(*arguments[:3], tmp_path / "none.npy").output


def test_a_dataset_of_tgb_that_is_not_there(tmp_path):
    pytest.importorskip("tgb")
    result = run("tgbl-review", tmp_path / "r.events.h5")
    assert isinstance(result.exception, InputError)
    assert "download" in str(result.exception)


def test_split_times(tmp_path, ratings):
    columns = ["--columns", "src=user,dst=item,time=t"]
    run(ratings, tmp_path / "r.events.h5", *columns, "--split-times", "4,12.5")
    split = EventStore.open(tmp_path / "r.events.h5").stream.split
    assert (split.train_end, split.validation_end) == (4, 13)


def test_second_time_needs_force(tmp_path, ratings):
    arguments = [ratings, tmp_path / "r.events.h5", "--columns", "src=user,dst=item,time=t"]
    assert run(*arguments).exit_code == 0
    assert isinstance(run(*arguments).exception, ConfigError)
    assert run(*arguments, "--force").exit_code == 0


def test_output_that_is_a_link_takes_the_place_of_the_link(tmp_path, ratings):
    (tmp_path / "link.events.h5").symlink_to(tmp_path / "outside")
    assert run(ratings, tmp_path / "link.events.h5", "--columns", "src=user,dst=item,time=t").exit_code == 0
    assert not (tmp_path / "link.events.h5").is_symlink()
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ([], InputError, "missing columns src, dst, time; there are user, item"),
        (["--columns", "src=user"], InputError, "dst, time missing"),
        (["--split", "1/2"], ConfigError, "found '1/2': try 0.70/0.15/0.15"),
        (["--split-times", "9,soon"], ConfigError, "two numbers T1,T2, found '9,soon'"),
        (["--split-times", "9,3"], ConfigError, "must ascend"),
        (
            ["--columns", "src=a,dst=b,time=c,label=d", "--label-by-file"],
            ConfigError,
            "--label-by-file",
        ),
        (["--chunk-events", "0"], ConfigError, "at least 1, found 0"),
    ],
)
def test_mistakes_are_told(tmp_path, ratings, options, error, complaint):
    result = run(ratings, tmp_path / "r.events.h5", *options)
    assert isinstance(result.exception, error)
    assert complaint in str(result.exception)
    assert list(tmp_path.iterdir()) == [ratings]


def test_one_file_cannot_be_two_classes(tmp_path, ratings):
    result = run(ratings, ratings, tmp_path / "r.events.h5", "--label-by-file")
    assert "different names" in str(result.exception)


def test_output_needs_an_input(tmp_path):
    assert run(tmp_path / "r.events.h5").exit_code == 2

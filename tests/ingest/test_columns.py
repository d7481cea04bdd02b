import pytest

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.columns import Columns, parse_columns, resolve

NAMES = ["u", "v", "t", "f0", "f1", "f2", "kind"]


def test_roles_and_ranges():
    columns = parse_columns("src=u, dst=v,time=t,label=kind,features=f2+f0:f1")
    assert resolve(columns, NAMES, "x.csv") == Columns("u", "v", "t", "kind", None, ("f2", "f0", "f1"))


def test_every_column_is_read_once():
    assert parse_columns("src=u,dst=v,time=t,features=t+f0").wanted == ["u", "v", "t", "f0"]


def test_a_name_with_a_colon_is_no_range():
    columns = parse_columns("src=u,dst=v,time=t,features=a:b")
    assert resolve(columns, ["u", "v", "t", "a:b"], "x.csv").features == ("a:b",)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("src=u,dst=v", "time missing"),
        ("src=u,dst=v,time=t,weight=w", "weight=w"),
        ("src=u,dst=v,time", "'time'"),
        ("src=u,src=v,time=t", "'src'"),
    ],
)
def test_invalid_texts_are_refused(text, complaint):
    with pytest.raises(InputError, match=complaint):
        parse_columns(text)


@pytest.mark.parametrize(
    ("features", "complaint"),
    [("f0:f9", "f9"), ("f2:f0", "f2:f0")],
)
def test_invalid_ranges_are_refused(features, complaint):
    with pytest.raises(InputError, match=complaint):
        resolve(parse_columns(f"src=u,dst=v,time=t,features={features}"), NAMES, "x.csv")


def test_many_names_are_not_all_listed():
    with pytest.raises(InputError, match="200"):
        resolve(Columns(), [f"c{index}" for index in range(200)], "x.csv")

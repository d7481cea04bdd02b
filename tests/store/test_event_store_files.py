import os

import pytest

from disttgl_hpc.errors import StoreError
from disttgl_hpc.store.files import (
    check_no_link,
    read_bytes,
    remove_folder,
    replacing,
    write_text,
)


def test_file_appears_once_it_is_complete(tmp_path):
    path = tmp_path / "x.h5"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.h5"
    path.write_text("old")

    def fail_halfway():
        with replacing(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("is_temporary", [False, True])
@pytest.mark.parametrize("is_dangling", [False, True])
def test_a_link_is_replaced_and_what_it_names_is_left_alone(tmp_path, is_temporary, is_dangling):
    """Be it in the file's place, or in that of the temporary file."""
    outside, name = tmp_path / "outside", "x.h5"
    if is_temporary:
        with replacing(tmp_path / name) as partial:
            partial.touch()
        (tmp_path / name).unlink()
        name = partial.name
    (tmp_path / name).symlink_to(outside)
    if not is_dangling:
        outside.write_text("mine")
    write_text(tmp_path / "x.h5", "new")
    assert (tmp_path / "x.h5").read_text() == "new"
    assert not (tmp_path / "x.h5").is_symlink()
    assert outside.exists() is not is_dangling
    assert is_dangling or outside.read_text() == "mine"


def test_a_folder_keeps_files_of_others_and_their_targets(tmp_path, caplog):
    folder, outside = tmp_path / "parts", tmp_path / "outside"
    (folder / "part-2.h5").mkdir(parents=True)
    outside.write_text("mine")
    (folder / "part-1.h5").symlink_to(outside)
    for name in ("part-0.h5", ".part-0.h5.0123abcd.17.partial", "other"):
        (folder / name).touch()
    remove_folder(folder, r"part-\d\.h5")
    assert {path.name for path in folder.iterdir()} == {"part-2.h5", "other"}
    assert outside.read_text() == "mine"
    assert "other, part-2.h5" in caplog.text
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(StoreError, match="link"):
        check_no_link(link)
    remove_folder(link, "other")
    assert not link.is_symlink()
    assert (folder / "other").exists()


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Invalid argument"):
        read_bytes(tmp_path / "pipe")

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.grid.schedule import GridShape, assignment
from disttgl_hpc.report.schedule_pictures import (
    check_size,
    grid_picture,
    picture_steps,
    schedule_picture,
    schedule_table,
    trainers_of,
)

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
shapes = st.builds(GridShape, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))


def elements(picture, tag):
    return list(ET.fromstring(picture).iter(SVG + tag))  # noqa: S314 - our own


def test_readme_and_docs_have_the_table_and_the_pictures_that_the_code_makes():
    assert schedule_table(GridShape(1, 2, 2), 6, 5) in (ROOT / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "parallel.md").read_text(encoding="utf-8")
    for name, picture in (
        ("schedule", schedule_picture(GridShape(1, 2, 2), 6, 7)),
        ("grid", grid_picture(GridShape(2, 2, 2))),
    ):
        assert f"(../jobs/pictures/{name}.svg)" in page
        made = (ROOT / "jobs" / "pictures" / f"{name}.svg").read_text(encoding="utf-8")
        assert made == picture, f"disttgl schedule makes another {name}.svg: replace it"


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(1, 7))
def test_every_trainer_has_a_cell_for_each_step_with_what_the_schedule_says(shape, num_batches):
    steps = picture_steps(shape, num_batches)
    cells = [tip.text for tip in elements(schedule_picture(shape, num_batches, steps), "title")]
    assert len(cells) == shape.num_trainers * steps
    reads = sum("reads and writes" in cell for cell in cells)
    assert reads == shape.minibatch * shape.memory * steps, "one global batch a replica and step"
    idle = sum("idle" in cell for cell in cells)
    assert idle == shape.minibatch * shape.memory * shape.epoch * (shape.epoch - 1) // 2
    for step, at in ((step, at) for step in range(steps) for at in trainers_of(shape)):
        work = assignment(step, at, shape, num_batches)
        named = [c for c in cells if c.startswith(f"step {step}, replica {at.memory}, lane {at.epoch}")]
        assert named
        assert work is None or all(f"batch {work.batch}, pass {work.pass_index}" in cell for cell in named)


def test_a_line_shows_where_a_sweep_begins():
    picture = schedule_picture(GridShape(1, 2, 2), 6, 7)
    begins = [element for element in elements(picture, "rect") if element.get("class") == "ink"]
    assert len(begins) == 2, "replica 1 in step 3, replica 0 in step 6"
    assert float(begins[0].get("x")) > float(begins[1].get("x"))


def test_the_grid_shows_every_trainer_once_and_a_daemon_for_each_node():
    picture = grid_picture(GridShape(2, 3, 4), nodes=2)
    texts = [element.text for element in elements(picture, "text")]
    trainers = [int(match[1]) for text in texts if (match := re.fullmatch(r"trainer (\d+)", text))]
    assert sorted(trainers) == list(range(24))
    assert texts.count("memory daemon") == 2
    assert [text for text in texts if text.startswith("replica")] == [f"replica {k}" for k in range(4)]


def test_the_trainers_of_the_grid_are_numbered_as_ranks_are():
    from disttgl_hpc.grid.process_grid import coordinates_of

    shape = GridShape(2, 3, 2)
    assert trainers_of(shape) == [coordinates_of(number, shape) for number in range(shape.num_trainers)]


def test_no_text_is_wider_than_its_picture():
    for picture in (schedule_picture(GridShape(1, 1, 1), 1, 1), grid_picture(GridShape(1, 1, 1))):
        width = float(ET.fromstring(picture).get("width"))  # noqa: S314
        for element in elements(picture, "text"):
            if "end" not in (element.get("class") or ""):
                assert float(element.get("x")) + 5 * len(element.text) < width + 2


def test_pictures_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="spread evenly over 2 nodes"):
        grid_picture(GridShape(1, 1, 3), nodes=2)
    with pytest.raises(ConfigError, match=r"fewer --steps"):
        check_size(GridShape(8, 8, 8), 6, 1000)
    with pytest.raises(ConfigError, match=r"at least 1"):
        check_size(GridShape(1, 1, 1), 0, 3)

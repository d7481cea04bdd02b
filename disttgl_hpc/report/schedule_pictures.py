"""The grid and its schedule as SVG pictures, and the schedule as a table, from the schedule's own functions."""

from __future__ import annotations

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.grid.schedule import Assignment, Coordinates, GridShape, assignment
from disttgl_hpc.report.drawing import NUM_COLORS, document, path, rectangle, text

MOST_CELLS = 20_000
"""Most cells of a picture: trainers times steps."""
_KEY = "number and colour: batch · R, W: reads and writes its replica’s memory · thick line: memory zeroed"
_CELL_WIDTH, _CELL_HEIGHT = 62, 34
_BOX_WIDTH, _BOX_HEIGHT = 74, 40


def trainers_of(shape: GridShape) -> list[Coordinates]:
    """Coordinates of a grid's trainers, by replica, then lane, then slice."""
    return [
        Coordinates(minibatch, lane, replica)
        for replica in range(shape.memory)
        for lane in range(shape.epoch)
        for minibatch in range(shape.minibatch)
    ]


def check_size(shape: GridShape, num_batches: int, num_steps: int) -> None:
    """Raise ConfigError for a picture without batches or steps, or with more than MOST_CELLS cells."""
    if min(num_batches, num_steps) < 1:
        raise ConfigError(
            f"a picture needs batches and steps: got {num_batches} and {num_steps}; give at least 1 of each"
        )
    if shape.num_trainers * num_steps > MOST_CELLS:
        raise ConfigError(
            f"a picture has at most {MOST_CELLS:,} cells: got {shape.num_trainers} trainers × {num_steps} steps; "
            "give fewer --steps"
        )


def _name(at: Coordinates, shape: GridShape) -> str:
    slice_ = f", slice {at.minibatch}" if shape.minibatch > 1 else ""
    return f"replica {at.memory}, lane {at.epoch}{slice_}"


def _marks(work: Assignment) -> str:
    """R if the memory is read, W if it is written."""
    return " ".join(letter for letter, does in (("R", work.reads), ("W", work.writes)) if does)


def _begins_sweep(work: Assignment) -> bool:
    """Whether the memory is zeroed before the read of this step; the start of a run does not count."""
    return work.begins_sweep and work.reads and work.counter > 0


def schedule_table(shape: GridShape, num_batches: int, num_steps: int) -> str:
    """The work of each trainer in each step, as a Markdown table."""
    places = trainers_of(shape)
    rows = [["step", *(_name(at, shape) for at in places)]]
    for step in range(num_steps):
        cells = []
        for at in places:
            work = assignment(step, at, shape, num_batches)
            if work is None:
                cells.append("–")
                continue
            zeroed = " (memory zeroed)" if _begins_sweep(work) else ""
            cells.append(f"batch {work.batch}, pass {work.pass_index} {_marks(work)}".rstrip() + zeroed)
        rows.append([f"{step}", *cells])
    first, *others = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([first, "|" + "---|" * (1 + len(places)), *others])


def schedule_picture(shape: GridShape, num_batches: int, num_steps: int) -> str:
    """The work of each trainer in each step, as SVG: a row for each trainer, coloured by batch.

    A thick line marks where a replica begins a sweep with an empty memory.
    """
    places = trainers_of(shape)
    left, top = 20 + 6.2 * max(len(_name(at, shape)) for at in places), 62.0
    width = max(left + num_steps * _CELL_WIDTH + 12, 12 + 6.0 * len(_KEY))
    parts = [
        text(2, 14, f"Who does what: {shape} trainers, L = {num_batches} batches", "title"),
        text(2, 31, _KEY),
    ]
    parts += [
        text(left + (step + 0.5) * _CELL_WIDTH, top - 8, f"step {step}", "mid") for step in range(num_steps)
    ]
    y = top
    for at in places:
        begins_replica = at.epoch == 0 and at.minibatch == 0
        y += 10 if begins_replica and at.memory > 0 else 0
        parts.append(text(left - 8, y + _CELL_HEIGHT / 2 + 4, _name(at, shape), "end strong"))
        for step in range(num_steps):
            work = assignment(step, at, shape, num_batches)
            parts += _cell(left + step * _CELL_WIDTH, y, work, f"step {step}, {_name(at, shape)}")
        y += _CELL_HEIGHT
    return document(width, y + 10, f"Schedule of a {shape} grid", parts, standalone=True)


def _cell(x: float, y: float, work: Assignment | None, where: str) -> list[str]:
    if work is None:
        tip = f"{where}: idle, its first batch is still to come"
        return [rectangle(x + 1, y + 1, _CELL_WIDTH - 2, _CELL_HEIGHT - 2, "faint", tip)]
    does = " and ".join(word for word, is_done in (("reads", work.reads), ("writes", work.writes)) if is_done)
    tip = f"{where}: batch {work.batch}, pass {work.pass_index}" + (f", {does} the memory" if does else "")
    parts = [
        rectangle(x + 1, y + 1, _CELL_WIDTH - 2, _CELL_HEIGHT - 2, f"soft f{work.batch % NUM_COLORS}", tip),
        text(x + 8, y + 15, f"{work.batch}", "strong title"),
        text(x + _CELL_WIDTH - 7, y + 15, _marks(work), "end strong"),
        text(x + 8, y + 28, f"pass {work.pass_index}"),
    ]
    if _begins_sweep(work):
        parts.append(rectangle(x - 1.5, y - 1, 3.5, _CELL_HEIGHT + 2, "ink"))
    return parts


def grid_picture(shape: GridShape, *, nodes: int = 1) -> str:
    """The grid as SVG: the trainers of each replica, i slices by j lanes, its memory, and a daemon for each node.

    Raises ConfigError if the replicas cannot be spread evenly over ``nodes``.
    """
    if nodes < 1 or shape.memory % nodes:
        raise ConfigError(
            f"{shape} has {shape.memory} replicas, which cannot be spread evenly over {nodes} nodes: give another "
            "--nodes"
        )
    left, top, gap = 74.0, 66.0, 26.0
    block_width = shape.epoch * _BOX_WIDTH + 128
    block_height = shape.minibatch * _BOX_HEIGHT
    per_node = shape.memory // nodes
    width, y = left + block_width + 118, top
    parts = [
        text(2, 14, f"A grid of {shape} = {shape.num_trainers} trainers", "title"),
        text(
            2,
            31,
            f"i = {shape.minibatch} · j = {shape.epoch} · k = {shape.memory}: slices of a batch, lanes, replicas",
        ),
    ]
    parts += [
        text(left + (lane + 0.5) * _BOX_WIDTH, top - 8, f"lane {lane}", "mid") for lane in range(shape.epoch)
    ]
    for node in range(nodes):
        begin = y
        for replica in range(node * per_node, (node + 1) * per_node):
            parts += _replica(replica, shape, left, y)
            y += block_height + gap
        parts += _daemon(node, nodes, left + block_width - 10, begin, y - gap - begin)
    last = "Gradients of all trainers are summed once a step; nothing else leaves a node in steps."
    parts.append(text(2, y + 4, last))
    return document(max(width, 480), y + 16, f"A grid of {shape}", parts, standalone=True)


def _replica(replica: int, shape: GridShape, left: float, top: float) -> list[str]:
    """Trainers of a replica in i rows and j columns, and their shared memory."""
    color = f"f{replica % NUM_COLORS}"
    parts = []
    for minibatch in range(shape.minibatch):
        y = top + minibatch * _BOX_HEIGHT
        parts.append(text(left - 8, y + _BOX_HEIGHT / 2 + 4, f"slice {minibatch}", "end"))
        for lane in range(shape.epoch):
            number = (replica * shape.epoch + lane) * shape.minibatch + minibatch
            x = left + lane * _BOX_WIDTH
            parts.append(rectangle(x + 2, y + 2, _BOX_WIDTH - 4, _BOX_HEIGHT - 4, f"soft {color}"))
            parts.append(text(x + _BOX_WIDTH / 2, y + _BOX_HEIGHT / 2 + 4, f"trainer {number}", "mid strong"))
    height = shape.minibatch * _BOX_HEIGHT
    x, middle = left + shape.epoch * _BOX_WIDTH, top + height / 2
    parts.append(path([(x + 2, middle), (x + 24, middle)], "base"))
    parts.append(rectangle(x + 24, top + 2, 84, height - 4, f"firm {color}"))
    parts.append(text(x + 66, middle - 2, "memory of", "mid paper"))
    parts.append(text(x + 66, middle + 11, f"replica {replica}", "mid paper"))
    return parts


def _daemon(node: int, nodes: int, x: float, top: float, height: float) -> list[str]:
    """A bracket around the memory of a node, with its daemon."""
    middle = top + height / 2
    bracket = [(x, top + 4), (x + 7, top + 4), (x + 7, top + height - 4), (x, top + height - 4)]
    of = f"of node {node}" if nodes > 1 else "R(c) W(c) R(c+1) …"
    return [
        path(bracket, "base"),
        text(x + 14, middle - 2, "memory daemon", "strong"),
        text(x + 14, middle + 12, of),
    ]


def picture_steps(shape: GridShape, num_batches: int) -> int:
    """Steps of a picture that shows a whole sweep and the beginning of the next."""
    return num_batches + shape.epoch

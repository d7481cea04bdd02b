"""Damage done to files: bytes, HDF5 structure, JSON values, lines of text, the place where a file lies.

Every function takes a random.Random, so that a case repeats; hypothesis gives one whose choices it can shrink.
"""

import json
import shutil

import h5py
import numpy as np

ABSURD_NUMBERS = [-1, 0, 1, 16, 18, 2**31, 10**15, 2**62, 2**63 - 1, 0.5, -1e300, float("nan"), float("inf")]
VALUES = [-1, 10**9, 0, 17, 149, 150, 219, 220, 2**31, 2**62, -1e30, 1e30, float("nan"), float("inf")]
ABSURD_TEXTS = ["", "x", "\u00e9\n", "../x", "/dev/null", "nan", "1e9", "1x1x9", "[" * 50_000]
CELLS = [
    "",
    " ",
    "0",
    "-1",
    "a",
    '"',
    '"a,b"',
    "1" * 30,
    "0x10",
    "1.5",
    "nan",
    "inf",
    "\0",
    "u\u00e9",
    "9" * 18,
]
CELLS += ["1e400", "1e308", "-1e308", "1e-300", f"{2**53 + 1}", f"{2**63 - 1}", f"{2**63}", f"{-(2**63)}"]


def change_bytes(content, draws):
    """Overwrite some bytes and words, and sometimes cut; half of it where an HDF5 file has its structure."""
    changed = bytearray(content)

    def place():
        return draws.randrange(min(len(content), draws.choice([4096, len(content)])))

    for _ in range(draws.randrange(5) if content else 0):
        changed[place()] = draws.choice([0, 1, 127, 128, 255])
    for _ in range(draws.randrange(3) if content else 0):
        start = place() // 8 * 8
        word = draws.choice([2**64 - 1, 2**63, 10**15, 2**32, 0]).to_bytes(8, "little")
        changed[start : start + 8] = word[: len(content) - start]
    return bytes(changed[: draws.randrange(len(content))] if content and draws.random() < 0.3 else changed)


def change_structure(path, draws):
    """Change one or two attributes and datasets of an HDF5 file, checksums left as they are."""
    with h5py.File(path, "r+") as file:
        datasets = []
        file.visititems(lambda name, item: datasets.append(name) if isinstance(item, h5py.Dataset) else None)
        if draws.random() < 0.5:
            for name in draws.sample(sorted(file.attrs), 1):
                change_attribute(file, name, draws)
        else:
            for name in draws.sample(sorted(datasets), min(len(datasets), draws.choice([1, 1, 2]))):
                change_dataset(file, name, draws)


def change_attribute(file, name, draws):
    """Remove an attribute, make it absurd, or change a value in its JSON text."""
    value, what = file.attrs[name], draws.choice(["none", "number", "text", "inner", "inner"])
    if what == "inner" and isinstance(value, str) and value[:1] in ("{", "["):
        file.attrs[name] = json.dumps(change_value(json.loads(value), draws))
    elif what == "none":
        del file.attrs[name]
    elif what == "number":
        file.attrs[name] = draws.choice(ABSURD_NUMBERS)
    else:
        file.attrs[name] = draws.choice(ABSURD_TEXTS)


def change_dataset(file, name, draws):
    """Change some values of a dataset, or its type, shape or storage."""
    values = file[name][()]
    what = draws.choice([*["values"] * 6, "type", "shape", "huge", "group", "link", "none", "chunks"])
    if what == "values" and np.size(values):
        changed = np.array(values)
        for _ in range(draws.choice([1, 1, 5])):
            value = draws.choice(VALUES)
            at = draws.randrange(changed.size)
            with np.errstate(all="ignore"):
                changed.flat[at] = (
                    b"x" if changed.dtype.kind in "OS" else np.array(value).astype(changed.dtype)
                )
        file[name][...] = changed
        return
    del file[name]
    if what == "type":
        dtype = draws.choice(["f4", "u1", "i8", ">i4", "i2", "S3", "f8", "c8"])
        file[name] = values.astype(dtype) if values.dtype.kind in "iuf" else np.zeros(np.shape(values), dtype)
    elif what == "shape":
        first = len(values) if np.ndim(values) else 1
        file[name] = np.zeros(draws.choice([(0,), (1,), (), (first, 1), (first - 1,)]), values.dtype)
    elif what == "huge":
        file.create_dataset(name, (10**15,), values.dtype, chunks=(1024,))
    elif what == "chunks" and np.ndim(values):
        file.create_dataset(name, data=values, dtype=values.dtype, chunks=True, compression="gzip")
    elif what == "group":
        file.create_group(name)
    elif what == "link":
        file[name] = draws.choice([h5py.ExternalLink("/etc/passwd", "x"), h5py.SoftLink("/events/src")])


def change_json(content, draws):
    """Change a value in one line of JSON lines, or in a whole JSON text; bytes where it is neither."""
    try:
        return json.dumps(change_value(json.loads(content), draws)).encode() + b"\n"
    except ValueError:
        lines = content.splitlines(keepends=True)
    try:
        at = draws.randrange(len(lines))
        lines[at] = json.dumps(change_value(json.loads(lines[at]), draws)).encode() + b"\n"
        return b"".join(lines)
    except ValueError:
        return change_bytes(content, draws)


def change_value(value, draws):
    """A JSON value of which one part, at any depth, has another value or is missing."""
    if isinstance(value, dict | list) and value and draws.random() < 0.85:
        changed = value.copy()
        key = draws.choice(sorted(value)) if isinstance(value, dict) else draws.randrange(len(value))
        if draws.random() < 0.15:
            del changed[key]
        else:
            changed[key] = change_value(value[key], draws)
        return changed
    return draws.choice([*ABSURD_NUMBERS, *ABSURD_TEXTS, None, True, [], {}, [1, "x"], {"x": 1}, -(10**400)])


def change_text(content, draws):
    """Change lines and cells of a text file, its line ends or its encoding."""
    lines = content.split(b"\n")
    what = draws.choice(["cell", "cell", "cell", "double", "drop", "blank", "crlf", "utf-16", "bom", "bytes"])
    at = draws.randrange(len(lines))
    if what == "cell":
        delimiter = next((mark for mark in (b",", b"\t", b" ") if mark in lines[at]), b",")
        cells = lines[at].split(delimiter)
        cells[draws.randrange(len(cells))] = draws.choice(CELLS).encode()
        lines[at] = delimiter.join(cells)
    elif what == "double":
        lines.insert(draws.randrange(len(lines)), lines[at])
    elif what == "drop":
        del lines[at]
    elif what == "blank":
        lines.insert(at, b"")
    elif what == "bytes":
        return change_bytes(content, draws)
    changed = (b"\r\n" if what == "crlf" else b"\n").join(lines)
    if what == "bom":
        return b"\xef\xbb\xbf" + changed
    return changed.decode("utf-8", "replace").encode("utf-16") if what == "utf-16" else changed


def replace_file(path, others, draws):
    """Remove a file, empty it, or put a folder, a link or one of the ``others`` in its place."""
    what = draws.choice(["none", "empty", "folder", "loop", "dangling", "other", "twice"])
    content = path.read_bytes()
    path.unlink()
    if what == "empty":
        path.touch()
    elif what == "folder":
        path.mkdir()
        (path / "x").touch()
    elif what == "loop":
        path.symlink_to(path.name)
    elif what == "dangling":
        path.symlink_to("nowhere")
    elif what == "other":
        shutil.copyfile(draws.choice(others), path)
    elif what == "twice":
        path.write_bytes(content * 2)


def rearrange(folder, draws):
    """Change what a folder holds: a file more, a folder more, one under another name, or two swapped."""
    inside = sorted(folder.iterdir())
    what = draws.choice(["file", "folder", "rename", "swap", "copy", "none"])
    if what == "file":
        (folder / draws.choice([".nfs0001", "x", "step-000000003", "step-000000999"])).write_bytes(b"x")
    elif what == "folder":
        (folder / draws.choice([".ipynb_checkpoints", "step-000000998", "node-7.h5"])).mkdir(exist_ok=True)
    elif what == "none" or len(inside) < 2:
        shutil.rmtree(folder)
    elif what == "rename":
        draws.choice(inside).rename(folder / draws.choice(["x", "step-000000997", "best.json.old"]))
    else:
        one, other = draws.sample(inside, 2)
        if what == "swap":
            one.rename(folder / "swapped")
            other.rename(one)
            (folder / "swapped").rename(other)
        elif one.is_dir():
            shutil.copytree(one, folder / "step-000000996")
        else:
            shutil.copyfile(one, folder / "node-2.h5")

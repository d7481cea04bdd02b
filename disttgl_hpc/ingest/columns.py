"""Which column of the input plays which part: ``src=..,dst=..,time=..[,label=..][,features=..]``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from disttgl_hpc.errors import InputError

_REQUIRED = ("src", "dst", "time")
_OPTIONAL = ("label", "node_label", "features", "labels")
_EXAMPLE = "--columns src=user,dst=item,time=t,label=kind,features=f0:f9"


@dataclass(frozen=True)
class Columns:
    """Column names by the part they play; ``features`` as they stand in the file, in order.

    label: of each event's one class. labels: of a 0 or 1 for each of several classes, which are named as they are.
    """

    src: str = "src"
    dst: str = "dst"
    time: str = "time"
    label: str | None = None
    node_label: str | None = None
    features: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def wanted(self) -> list[str]:
        """Every column that has to be read, each once."""
        singles = [self.src, self.dst, self.time, self.label, self.node_label]
        return list(
            dict.fromkeys([name for name in singles if name is not None] + [*self.features, *self.labels])
        )


def parse_columns(text: str) -> Columns:
    """Columns from the command line's text; ranges ``a:b`` stay unresolved until the file's names are known.

    Raises InputError for an unknown part, a part named twice or a required one left out.
    """
    parts: dict[str, str] = {}
    for item in text.split(","):
        part, equals, name = (piece.strip() for piece in item.partition("="))
        if not equals or not name or part not in _REQUIRED + _OPTIONAL:
            raise InputError(
                f"--columns takes part=name with the parts {', '.join(_REQUIRED + _OPTIONAL)}, "
                f"found '{item.strip()}': write for example {_EXAMPLE}"
            )
        if part in parts:
            raise InputError(f"--columns names a part once, found '{part}' twice: join features with '+'")
        parts[part] = name
    missing = [part for part in _REQUIRED if part not in parts]
    if missing:
        raise InputError(f"--columns must name src, dst and time, {', '.join(missing)} missing: {_EXAMPLE}")
    if "label" in parts and "labels" in parts:
        raise InputError(
            "--columns: events have one class, label=, or several, labels=, not both: leave one out"
        )
    several = {part: joined_names(parts.get(part, "")) for part in ("features", "labels")}
    return Columns(
        parts["src"], parts["dst"], parts["time"], parts.get("label"), parts.get("node_label"), **several
    )


def joined_names(text: str) -> tuple[str, ...]:
    """Column names, or their numbers, joined by '+'."""
    return tuple(piece.strip() for piece in text.split("+") if piece.strip())


def resolve(columns: Columns, names: Sequence[str], file: str) -> Columns:
    """The same columns with feature ranges spelled out, every one of them present in ``names``.

    Raises InputError naming the file, the columns that are missing and those that there are.
    """
    duplicates = sorted({name for name in names if names.count(name) > 1}.intersection(columns.wanted))
    if duplicates:
        raise InputError(f"{file}: column names must be unique, found twice: {', '.join(duplicates)}")
    features, labels = (
        tuple(name for item in items for name in _expand(item, names, file))
        for items in (columns.features, columns.labels)
    )
    resolved = replace(columns, features=features, labels=labels)
    _require(resolved.wanted, names, file)
    return resolved


def _expand(item: str, names: Sequence[str], file: str) -> list[str]:
    """One item of ``features`` or ``labels``: a name as it is, or a range ``a:b`` with both ends included."""
    first, colon, last = item.partition(":")
    if not colon or item in names:
        return [item]
    _require([first, last], names, file)
    begin, end = names.index(first), names.index(last)
    if begin > end:
        raise InputError(f"{file}: the range {item} is empty, '{last}' comes before '{first}': swap them")
    return list(names[begin : end + 1])


def _require(wanted: Sequence[str], names: Sequence[str], file: str) -> None:
    missing = [name for name in wanted if name not in names]
    if missing:
        shown = ", ".join(names[:20]) + (f", … ({len(names)} in all)" if len(names) > 20 else "")
        raise InputError(
            f"{file}, line 1: missing columns {', '.join(missing)}; there are {shown}: "
            f"name yours, {_EXAMPLE}, or choose another --format"
        )

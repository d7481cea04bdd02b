"""The roles of input columns: ``src=..,dst=..,time=..[,label=..][,features=..]``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from disttgl_hpc.errors import InputError

_REQUIRED = ("src", "dst", "time")
_OPTIONAL = ("label", "node_label", "features", "labels")
_EXAMPLE = "--columns src=user,dst=item,time=t,label=kind,features=f0:f9"


@dataclass(frozen=True)
class Columns:
    """Column names by role; ``features`` in order, as ranges ``a:b`` until :func:`resolve`.

    label: the class of an event. labels: a column of 0 and 1 per class, whose name is the class's, for events that
    may have several.
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
        """Every column to read, each once."""
        singles = [self.src, self.dst, self.time, self.label, self.node_label]
        return list(
            dict.fromkeys([name for name in singles if name is not None] + [*self.features, *self.labels])
        )


def parse_columns(text: str) -> Columns:
    """Columns from the command line's text; ranges ``a:b`` stay unresolved until the file's names are known.

    Raises InputError for an unknown role, a role given twice or a required one missing.
    """
    roles: dict[str, str] = {}
    for item in text.split(","):
        role, equals, name = (piece.strip() for piece in item.partition("="))
        if not equals or not name or role not in _REQUIRED + _OPTIONAL:
            raise InputError(
                f"--columns takes role=name with the roles {', '.join(_REQUIRED + _OPTIONAL)}, "
                f"found '{item.strip()}': write for example {_EXAMPLE}"
            )
        if role in roles:
            raise InputError(f"--columns takes each role once, found '{role}' twice: join features with '+'")
        roles[role] = name
    missing = [role for role in _REQUIRED if role not in roles]
    if missing:
        raise InputError(f"--columns must name src, dst and time, {', '.join(missing)} missing: {_EXAMPLE}")
    if "label" in roles and "labels" in roles:
        raise InputError(
            "--columns: events have one class, label=, or several, labels=, not both: omit one of them"
        )
    return Columns(
        src=roles["src"],
        dst=roles["dst"],
        time=roles["time"],
        label=roles.get("label"),
        node_label=roles.get("node_label"),
        features=joined_names(roles.get("features", "")),
        labels=joined_names(roles.get("labels", "")),
    )


def joined_names(text: str) -> tuple[str, ...]:
    """Column names or numbers from text in which '+' joins them."""
    return tuple(piece.strip() for piece in text.split("+") if piece.strip())


def resolve(columns: Columns, names: Sequence[str], file: str) -> Columns:
    """The same columns with ranges expanded, all of them among the file's ``names``.

    Raises InputError for missing columns and for names that occur twice.
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
    """One item of ``features`` or ``labels``: a name, or a range ``a:b`` that includes both ends."""
    first, colon, last = item.partition(":")
    if not colon or item in names:
        return [item]
    _require([first, last], names, file)
    start, stop = names.index(first), names.index(last)
    if start > stop:
        raise InputError(f"{file}: the range {item} is empty, '{last}' comes before '{first}': swap them")
    return list(names[start : stop + 1])


def _require(wanted: Sequence[str], names: Sequence[str], file: str) -> None:
    missing = [name for name in wanted if name not in names]
    if missing:
        shown = ", ".join(names[:20]) + (f", … ({len(names)} in all)" if len(names) > 20 else "")
        raise InputError(
            f"{file}, line 1: missing columns {', '.join(missing)}; there are {shown}: "
            f"name yours, {_EXAMPLE}, or choose another --format"
        )

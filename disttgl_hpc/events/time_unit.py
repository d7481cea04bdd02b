"""In which unit the model sees times: its encoding tells elapsed times from 1 to 10^9 apart."""

from __future__ import annotations

from math import floor, log10

from disttgl_hpc.events.stream import EventStream

_LEAST, _MOST = 1e4, 1e9  # spans that the encoding sees well as they are
_AIM = 7  # decades of a span that had to be changed


def model_unit(stream: EventStream, wanted: float = 0.0) -> float:
    """How many units of a stream's times make one of the model's: as many as are wanted, if that is not 0.

    Else a second, where the store knows its unit, else the unit itself, as long as the training events span 10^4 to
    10^9 of these: three hours to thirty years in seconds. Else a power of ten of them, so that they span 10^7 to
    10^8.
    """
    if wanted:
        return wanted
    second = stream.units_of_a_second
    times = stream.time[: stream.split.train_end]
    span = (float(times[-1]) - float(times[0])) / second if len(times) else 0.0
    if span == 0 or _LEAST <= span <= _MOST:
        return second
    power: float = 10.0 ** (floor(log10(span)) - _AIM)
    return second * power

"""The console script ``disttgl``, also ``python -m disttgl_hpc``: what comes before MPI is loaded."""

from __future__ import annotations

import importlib
import os
import sys

from disttgl_hpc.errors import EXIT_INTERRUPTED, EXIT_USAGE, GridError
from disttgl_hpc.grid.rank_parent import fork_rank
from disttgl_hpc.grid.shared_memory import check_room_for_mpi


def main() -> None:
    """Run the command line, in a child process if this is a rank of a job."""
    _fill_standard_files()
    fork_rank()
    try:
        check_room_for_mpi()
        command_line = importlib.import_module("disttgl_hpc.cli")
    except GridError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        sys.stderr.write("Error: interrupted\n")
        sys.exit(EXIT_INTERRUPTED)
    command_line.main()


def _fill_standard_files() -> None:
    """Open those that are closed on /dev/null: the next file to be opened would receive what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


if __name__ == "__main__":
    main()

"""``python -m disttgl_hpc``: the same as the console script ``disttgl``."""

from disttgl_hpc.cli import main

if __name__ == "__main__":
    main()

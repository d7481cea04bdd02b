"""What people read of results: tables, charts, the page of a run, pictures of the schedule."""

from disttgl_hpc.report.tables import (
    heads_table,
    loader_table,
    results_table,
    scaling_table,
    training_table,
)

__all__ = ["heads_table", "loader_table", "results_table", "scaling_table", "training_table"]

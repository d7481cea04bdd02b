"""What people read of results: tables, charts, the page of a run, pictures of the schedule."""

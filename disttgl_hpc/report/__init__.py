"""Results for people: tables, charts, the page about runs, pictures of the schedule."""

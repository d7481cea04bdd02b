"""The i×j×k grid: the schedule, the processes that follow it, and what they do together."""

"""From raw input to an event store: settings, ids, order by time, split."""

"""From raw input to an event store: readers, node ids, time order, split; generated and appended events."""

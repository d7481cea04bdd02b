"""Node memory: its state and order of operations, the daemon that serves it, and its clients."""

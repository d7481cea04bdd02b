"""Before a run: what a large batch hides, which grid to take, how far it scales."""

"""The loops a person reads top to bottom: prepare, train, evaluate."""

"""Held-out events: candidates, ranking and class metrics, heuristics, and the evaluator."""

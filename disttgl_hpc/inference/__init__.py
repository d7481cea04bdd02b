"""Inference with a trained run: embed, score, recommend, update, classify."""

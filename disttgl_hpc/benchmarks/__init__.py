"""Measurements of training on this machine, and the doctor."""

"""Measurements of training on this machine, and checks of a machine before a job."""

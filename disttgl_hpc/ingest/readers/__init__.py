"""Readers of raw input, one module per format; each yields chunks of events."""

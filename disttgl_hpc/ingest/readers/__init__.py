"""Readers of raw input, by format; each yields chunks of events."""

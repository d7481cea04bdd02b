"""Raw input of any format, read in chunks of events."""

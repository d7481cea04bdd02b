"""The model: time encoding, memory update, attention, link head. Torch, any device."""

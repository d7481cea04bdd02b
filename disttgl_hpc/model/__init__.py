"""TGN: memory update, attention, time encoding and heads in torch, with compiled loops for the CPU."""

"""The compiled forms of the model for the CPU, but for its matrix products."""

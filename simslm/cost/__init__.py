"""Cost models: the shape of an iteration in, seconds and joules out."""

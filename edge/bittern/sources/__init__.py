"""Sources of frames: one module per kind of source, and the registry of them all."""

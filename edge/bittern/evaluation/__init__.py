"""How good a model is on labelled pictures or a labelled clip, and which thresholds fit it."""

"""From answers to events: the motion gate, evidence and hysteresis, and the pipeline that runs them for a frame."""

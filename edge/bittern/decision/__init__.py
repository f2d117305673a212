"""From answers to events: the motion gate, hysteresis and votes, and the pipeline that runs them for a frame."""

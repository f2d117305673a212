"""The configuration file of a camera: its keys, reading it, and the example that explains each key."""

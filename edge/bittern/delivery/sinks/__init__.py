"""The sinks: one module per destination of events, and the registry that opens those of a configuration."""

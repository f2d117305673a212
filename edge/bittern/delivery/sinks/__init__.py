"""The sinks: one module for each place that events go to, and the registry that opens those of a configuration."""

"""From an event to whoever wants it: snapshots, the outbox, and the sinks."""

"""The delivery of events: snapshots, the outbox, and the sinks."""

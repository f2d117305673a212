"""The daemon: start, loop, reload, and what it says about itself."""

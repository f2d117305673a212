"""Access to the operating system: files, processes, signals, systemd, the machine."""

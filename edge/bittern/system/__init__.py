"""What Bittern asks of the operating system: files, processes, signals, systemd, the machine."""

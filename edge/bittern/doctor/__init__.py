"""The doctor: checks everything that Bittern needs on a machine, and names the command that fixes a problem."""

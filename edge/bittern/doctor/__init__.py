"""The doctor: looks at everything that Bittern needs on a machine, and names the command that mends it."""

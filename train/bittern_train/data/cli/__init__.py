"""`bittern data`: `main` has the group, every other module a subcommand."""

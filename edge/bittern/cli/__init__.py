"""The command `bittern`: one module per subcommand."""

"""The command `bittern`: one module for each command."""

"""The command `topreward`: one file per command."""

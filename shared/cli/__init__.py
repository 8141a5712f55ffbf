"""The command `recado`: a file for each of its subcommands, and the simulators of the channels."""

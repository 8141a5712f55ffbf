"""What a conversation costs, against what a user would pick instead, in one run on one machine: `make bench`."""

"""Stand-ins for the channels' own APIs, which enforce the real limits: for development and for tests."""

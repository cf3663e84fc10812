"""Who asks, and how likely it is a program: pure parts; no socket, no store, no clock."""

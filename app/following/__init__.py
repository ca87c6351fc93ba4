"""The thread that keeps the state current, and what it tells of itself."""

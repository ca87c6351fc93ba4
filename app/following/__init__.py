"""The consumer thread: it keeps the state current, and says how that goes."""

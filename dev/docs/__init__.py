"""The parts of the documentation that are written by a program: `python -m dev.docs`."""

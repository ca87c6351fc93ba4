"""What many instances cost one broker: real processes on this machine, counted at the broker."""

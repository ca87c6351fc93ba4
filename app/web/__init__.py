"""What the service answers over HTTP, by Flask."""

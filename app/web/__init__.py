"""HTTP: what the service answers, by Flask."""

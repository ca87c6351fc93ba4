"""Side-by-side measurements of this service, its peers and the bare limits."""

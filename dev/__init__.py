"""What a developer needs and production does not."""

"""A model that is retrained and swapped while it is asked; its README says more."""

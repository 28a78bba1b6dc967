"""Give downstream layers back what they lost."""

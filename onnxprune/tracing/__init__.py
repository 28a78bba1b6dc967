"""Trace which positions of which tensors must be removed together, and why some cannot be."""

"""Do what a verb does, from a loaded model to a result."""

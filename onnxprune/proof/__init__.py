"""Show that a rewritten model is valid and equals the masked original."""

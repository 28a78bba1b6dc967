"""Results as text for people and as plain data for programs; nothing here prints."""

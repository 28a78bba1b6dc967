"""Options that several commands share, one module per group of options."""

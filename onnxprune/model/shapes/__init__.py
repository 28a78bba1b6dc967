"""Shapes and values of every tensor that are known before a model runs."""

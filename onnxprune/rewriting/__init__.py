"""Carry a decision out on a graph, and write it down."""

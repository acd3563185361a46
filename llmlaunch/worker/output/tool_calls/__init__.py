"""Finds tool calls in an answer's text while it is generated: one module for each format in which models write them. Pure."""

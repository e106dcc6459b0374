"""Heads. One file per element, which is the part of an example that is scored; registered under the element's name."""

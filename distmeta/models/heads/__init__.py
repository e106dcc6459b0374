"""Heads. One file an element: what is scored of a body's states, registered under the element's name."""

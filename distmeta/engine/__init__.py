"""One outer step: how units are dispatched, how gradients are added, and how θ is updated."""

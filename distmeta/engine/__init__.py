"""One outer step: who does which units, how gradients are added, and how θ is updated."""

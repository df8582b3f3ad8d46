"""Gradient matching by optimisation: the core that the published attacks of this family are presets of."""

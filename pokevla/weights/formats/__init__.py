"""The formats of published weights: one module per entry of `pokevla.parts.WEIGHT_FORMATS`."""

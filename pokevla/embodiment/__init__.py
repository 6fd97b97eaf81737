"""Embodiments: what a robot is to data, model and policy, as a description that travels with them."""

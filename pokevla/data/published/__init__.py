"""Inputs and outputs of OpenVLA-OFT and VLA-Adapter as their own evaluations prepare them."""

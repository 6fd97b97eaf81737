"""Turns published weights into folders of ours and back: what a format consists of, and the steps that read it."""

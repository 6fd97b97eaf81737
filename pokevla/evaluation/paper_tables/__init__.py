"""Our results beside tables IV to VII of the paper."""

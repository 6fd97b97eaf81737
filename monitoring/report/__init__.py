"""The HTML report about pipelines, runs and evaluations."""

"""The recipe and dataset of the tests of `pokevla.jobs`."""

from tests.unit.jobs.conftest import dataset, load

__all__ = ["dataset", "load"]

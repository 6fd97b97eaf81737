"""Open-loop evaluation: predicted actions against recorded ones, where there is no simulator."""

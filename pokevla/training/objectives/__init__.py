"""What training minimises: one objective per kind of model, and its losses."""

"""What a job is: schema, loading, checks, plan."""

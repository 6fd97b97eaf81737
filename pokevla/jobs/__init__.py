"""What any launcher needs: the plan of a job, its pieces, checks, copy of the code, record and lock."""

"""What any launcher needs: job plan, pieces, preflight, code copy, record and lock."""

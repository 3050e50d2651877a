"""What the SQL adapters share: tables and their statements, values, and what a batch comes to."""

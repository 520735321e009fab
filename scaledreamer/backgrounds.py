"""What is seen behind a field."""

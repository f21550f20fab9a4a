"""What plugin authors test with, and what the project's own tests use."""

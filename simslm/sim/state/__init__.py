"""What a replica keeps: its batch, its KV blocks, its prefix cache and its waiting queue."""

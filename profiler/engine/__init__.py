"""The thing that is measured: a small transformer engine with a paged KV cache and batched iterations."""

"""The SDK: speaks HTTP, imports nothing of ours but `domain`."""

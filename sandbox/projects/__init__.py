"""Where source comes from and what it is: archives, manifest, detection."""

"""Authentication: tokens, stored as hashes, and the signatures of cookies and preview links."""

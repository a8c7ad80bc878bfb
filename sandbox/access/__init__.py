"""Who may call: tokens kept hashed, and the signatures of cookies and preview links."""

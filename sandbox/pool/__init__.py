"""The pool: containers that are started before there is a session for them."""

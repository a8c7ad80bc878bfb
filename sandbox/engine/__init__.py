"""The container engine and the agent in each container, behind two contracts (`base.py`)."""

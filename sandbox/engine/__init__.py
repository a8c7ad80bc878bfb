"""The container engine and the guest agent in each container, behind two contracts (`base.py`)."""

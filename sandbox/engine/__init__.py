"""The container engine and the guest agents, behind the contracts in `base.py`."""

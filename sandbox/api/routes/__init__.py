"""The routes of the API, one file per resource, with their request and response models."""

"""HTTP and nothing else: routes, request and response models, auth dependencies, SSE, WebSocket."""

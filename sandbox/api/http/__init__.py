"""What the routes share: authentication, body limits, request middleware, problem documents, paging, OpenAPI."""

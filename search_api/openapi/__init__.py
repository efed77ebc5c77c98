"""The API, described: OpenAPI 3.1 made of the models that the routes check bodies with, and a page of it to read."""

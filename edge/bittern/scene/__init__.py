"""The drawn street: the camera of the demonstration and of the tests, and a source of training pictures."""

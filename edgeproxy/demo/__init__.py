"""The demonstration: a chat backend that answers without a model, and the command that puts the edge before it."""

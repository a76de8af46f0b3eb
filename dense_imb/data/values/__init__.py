"""Images of values, such as heat maps of key points or radiotherapy doses."""

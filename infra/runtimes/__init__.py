"""What a model can run on: one file a runtime, and all of them alike to what is around them."""

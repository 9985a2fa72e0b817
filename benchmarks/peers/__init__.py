"""Other ways to serve the same ONNX file, each a file that its own documentation would have one write.

Each takes its port as an argument and the model directory in MODEL, and has one worker and one thread of ONNX Runtime.
"""

"""Tasks for other programs: a folder of the transformers library, or ONNX. Neither needs distmeta."""

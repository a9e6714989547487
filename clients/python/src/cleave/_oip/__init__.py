"""Messages of the Open Inference Protocol v2, which generate-stubs wrote from proto/inference."""

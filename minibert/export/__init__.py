"""Networks as programs that run without minibert: `torch.export` and ONNX, checked for parity."""
